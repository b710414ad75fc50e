"""The checks of settings: each returns the value as Python has it, or raises an error that names the setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ..integers import as_float, as_int
from ..quoting import shown

Check: TypeAlias = Callable[[str, object], object]
"""Takes the name of a setting and its value, which is not None; returns the value, or raises ValueError."""


def count(at_least: int, *, floats: bool = False) -> Check:
    """Return a check for integers of at least `at_least`; with `floats`, 5.0 is one too."""

    def check(name: str, value: object) -> int:
        found = as_int(value, floats=floats)
        if found is None or found < at_least:
            raise ValueError(f"`{name}` has to be an integer of at least {at_least}, but is {shown(value)}.")
        return found

    return check


def number(name: str, value: object) -> float:
    """Return a number as a float."""
    found = as_float(value)
    if found is None or math.isnan(found):
        raise ValueError(f"`{name}` has to be a number, but is {shown(value)}.")
    return found


def token_id(name: str, value: object) -> int:
    """Return the id of a token."""
    found = as_int(value, floats=True)
    if found is None:
        raise ValueError(f"`{name}` has to be the id of a token, an integer, but is {shown(value)}.")
    return found


def token_ids(name: str, value: object) -> int | list[int]:
    """Return the id of a token, or a list of ids from a list, a tuple, or an array or tensor of one dimension."""
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, (list, tuple)):
        found = [as_int(entry, floats=True) for entry in listed]
        ids = [entry for entry in found if entry is not None]
        if len(ids) == len(found):
            return ids
    elif (one := as_int(listed, floats=True)) is not None:
        return one
    raise ValueError(f"`{name}` has to be the id of a token, an integer, or a list of ids, but is {shown(value)}.")


def suppressed(name: str, value: object) -> list[int]:
    """Return a list of token ids, from a list, tuple, range or set, or an array or tensor of one dimension.

    A fraction is the id of no token, and left out. TypeError, as in Transformers, for what is no such list.
    """
    listed = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(listed, Collection) or isinstance(listed, (bytes, Mapping)):
        raise TypeError(f"`{name}` has to be a list of token ids, but is {shown(value)}.")
    found = [as_float(entry) for entry in listed]
    numbers = [entry for entry in found if entry is not None and math.isfinite(entry)]
    if isinstance(listed, str) or len(numbers) < len(found):
        raise ValueError(f"`{name}` has to be a list of token ids, integers, but is {shown(value)}.")
    return [int(entry) for entry in numbers if entry.is_integer()]


def bad_words(name: str, value: object) -> list[list[int]]:
    """Return a list with one list or more of token ids, none of them negative: lists alone, as in Transformers."""
    if not isinstance(value, list) or not value or not all(isinstance(word, list) for word in value):
        raise ValueError(f"`{name}` has to be a non-empty list of lists of token ids, but is {shown(value)}.")
    words = [[int(token) for token in word if _is_integer(token) and token >= 0] for word in value]
    if [len(word) for word in words] != [len(word) for word in value]:
        raise ValueError(f"Each list in `{name}` has to be a list of integers of at least 0, but is {shown(value)}.")
    return words


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def texts(name: str, value: object) -> str | list[str]:
    """Return a non-empty string, or a list of them."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Sequence) and value and all(isinstance(entry, str) and entry for entry in value):
        return list(value)
    raise ValueError(f"`{name}` has to be a non-empty string or a list of them, but is {shown(value)}.")
