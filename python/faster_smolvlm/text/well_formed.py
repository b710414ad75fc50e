"""Text that no tokenizer can read: half of a surrogate pair."""

from __future__ import annotations


def check_text(text: str, name: str) -> None:
    """Raise ValueError if a text holds a lone surrogate; `name` is what the message calls the text."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} holds half of a surrogate pair, U+{ord(text[error.start]):04X} at character {error.start}, which "
            "is no text: an emoji was cut in two, or bytes were read in the wrong encoding"
        ) from None
