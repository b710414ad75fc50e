"""Showing a value of a caller inside an error message: bounded in length, without addresses and payloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

_LENGTH = 200
_ENTRIES = 8
_DEPTH = 2
_BITS = 256  # a longer integer is said by its size: Python refuses to write one of more than 4300 digits
_NUMBERS = (int, float, complex)


def quoted(text: str) -> str:
    """Quote a text for a message; its control characters are escaped, its length is bounded.

    Of a data URI only the part in front of its payload is shown.
    """
    if text[:5].lower() == "data:":
        head, comma, payload = text.partition(",")
        text = f"{head}{comma}… ({len(payload)} characters)" if payload and len(head) < _LENGTH else text
    return repr(text if len(text) <= _LENGTH else text[:_LENGTH] + "…")


def shown(value: object) -> str:
    """Describe any value for a message in about 200 characters at most.

    Texts, numbers, bools and None are quoted, lists, tuples, sets and mappings entry by entry; of any other object only
    the type is named, since its own description may hold an address, or all its data.
    """
    return _cut(_shown(value, 0))


def type_name(value: object) -> str:
    """Return the name of the type of a value, bounded in length."""
    return _cut(type(value).__name__)


def _shown(value: object, depth: int) -> str:
    kind = type(value)
    if isinstance(value, str):
        return quoted(str.__str__(value))
    if value is None or kind is bool:
        return str(value)
    if isinstance(value, int) and value.bit_length() > _BITS:
        return f"an integer of {value.bit_length()} bits"
    if kind in _NUMBERS:
        return repr(value)
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} {kind.__name__}"
    if kind in (list, tuple, set, frozenset, dict):
        return _container(value, depth)  # type: ignore[arg-type]
    if isinstance(value, type):
        return f"the type {value.__name__}"
    if isinstance(value, Path):
        return quoted(str(value))
    if kind.__name__ in ("dtype", "device", "layout"):  # of torch
        return quoted(str(value))
    shape = getattr(value, "shape", None)
    item = getattr(value, "item", None)
    if shape == () and callable(item) and type(item()) in (bool, *_NUMBERS):  # a number of NumPy or torch
        return _shown(item(), depth)
    of_shape = f" of shape {tuple(shape)}" if isinstance(shape, tuple) and len(shape) <= _ENTRIES else ""
    return f"<{kind.__name__}{of_shape}>"


def _container(values: Iterable[object], depth: int) -> str:
    name = type(values).__name__
    size = len(values)  # type: ignore[arg-type]
    if depth == _DEPTH:
        return f"{name} of {size}"
    if isinstance(values, Mapping):
        entries = [
            f"{_shown(key, depth + 1)}: {_shown(item, depth + 1)}" for key, item in islice(values.items(), _ENTRIES)
        ]
    else:
        entries = [_shown(item, depth + 1) for item in islice(values, _ENTRIES)]
    start, end = {"list": ("[", "]"), "tuple": ("(", ")")}.get(name, ("{", "}"))
    return f"{start}{', '.join(entries)}{', …' if size > _ENTRIES else ''}{end}"


def _cut(text: str) -> str:
    return text if len(text) <= _LENGTH + 20 else text[:_LENGTH] + "…"
