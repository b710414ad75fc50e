"""What commands share: arguments, and messages that a terminal shows."""

from __future__ import annotations

import argparse
import sys

from ..quoting import shown
from ..text.well_formed import check_text

DEFAULT_MODEL = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"


def positive(given: str) -> int:
    """Read a whole number above 0, as argparse wants it."""
    try:
        value = int(given)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {shown(given)}")
    return value


def text(given: str) -> str:
    """Read a text, as argparse wants it: bytes that the locale could not read are no text."""
    try:
        check_text(given, "it")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; is the locale (LC_ALL, LANG) that of the terminal?") from None
    return given


def message_of(error: BaseException) -> str:
    """Return what an error says on one line, for people."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return "this needs PyTorch: pip install 'faster-smolvlm[torch]'"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, (ValueError, OSError, NotImplementedError)) else f"{type(error).__name__}: {text}"


def report(message: str) -> None:
    """Print a message to stderr, behind the name of the command."""
    print(f"faster-smolvlm: {printable(message)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Escape control characters, which a terminal would obey: names of files and answers come from others."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
