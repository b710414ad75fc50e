"""Errors that say which prompt, picture or clip of a call they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def located(error: Exception, where: str) -> Exception:
    """Return the error with `where` in front of its text, of the same type if that takes one text."""
    text = f"{where}: {error}"
    try:
        found = type(error)(text)
    except Exception:  # types such as UnicodeDecodeError are made of other things
        found = ValueError(text)
    if str(found) != text:  # and some write a text of their own
        found = ValueError(text)
    found.__cause__ = error.__cause__
    return found


@contextmanager
def at(where: str) -> Iterator[None]:
    """Say `where` in every error that leaves the block; an empty one leaves errors as they are."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if not where:
            raise
        raise located(error, where) from None
