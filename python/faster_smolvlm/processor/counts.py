"""Whether the placeholders of the texts and the media of a call agree, before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence

from ..text.placeholders import MediaTokens


def as_texts(text: object) -> list[str]:
    """Return the texts of a call; ValueError for anything but a string or a list of strings."""
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, (list, tuple)) else None
    if texts is None or not all(isinstance(item, str) for item in texts):
        raise ValueError("`text` must be a string or list of strings.")
    return texts


def check_counts(
    texts: Sequence[str], tokens: MediaTokens, images_per_text: list[int] | None, num_videos: int | None
) -> None:
    """Raise ValueError if the texts have not one placeholder for each picture and clip; None stands for no media."""
    in_texts = [text.count(tokens.image) for text in texts]
    num_images = None if images_per_text is None else sum(images_per_text)
    _check_total(tokens.image, "images", sum(in_texts), num_images)
    _check_total(tokens.video, "videos", sum(text.count(tokens.video) for text in texts), num_videos)
    if images_per_text is not None and in_texts != images_per_text:
        raise ValueError(
            f"The number of {tokens.image} tokens in each prompt should be the same as the number of images "
            f"passed. Found {in_texts} {tokens.image} tokens and {images_per_text} images per sample."
        )


def _check_total(token: str, kind: str, in_texts: int, given: int | None) -> None:
    if given is None:
        if in_texts:
            raise ValueError(f"Found {in_texts} {token} tokens in the text but no {kind} were passed.")
    elif in_texts != given:
        raise ValueError(
            f"The total number of {token} tokens in the prompts should be the same as the number of {kind} passed. "
            f"Found total {in_texts} {token} tokens and {given} {kind}."
        )
