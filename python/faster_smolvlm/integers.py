"""Numbers as callers have them: Python's own, NumPy's, or tensors that hold one."""

from __future__ import annotations

import operator
from numbers import Real

from .quoting import shown


def as_int(value: object, *, floats: bool = False) -> int | None:
    """Return an integer of Python, NumPy or torch (one value, no dimension) as an int; None if it is something else.

    True and False are no integers. With `floats`, a float that is whole, such as 5.0, counts too.
    """
    if type(value) is int:
        return value
    if not _is_scalar(value):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what has no index is a TypeError
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor without data
        number = as_float(value) if floats else None
        return int(number) if number is not None and number.is_integer() else None


def as_float(value: object) -> float | None:
    """Return a number of Python, NumPy or torch (one value, no dimension) as a float; None if it is something else.

    True and False are no numbers, nor is an integer that is too large for a float.
    """
    if not _is_scalar(value) or not (isinstance(value, Real) or hasattr(value, "shape")):
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # arrays of texts and complex numbers are errors
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def count_of(name: str, value: object, at_least: int) -> int:
    """Return the argument `name` as an int of at least `at_least`; ValueError, which names it, for anything else."""
    found = as_int(value)
    if found is None or found < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, got {shown(value)}")
    return found


def optional_count(name: str, value: object, at_least: int) -> int | None:
    """As `count_of`, and None for None."""
    return None if value is None else count_of(name, value, at_least)


def _is_scalar(value: object) -> bool:
    """Whether it may be one number: no bool of Python, NumPy or torch, and nothing with a dimension."""
    dtype = str(getattr(value, "dtype", ""))
    is_real = not dtype or dtype.removeprefix("torch.").startswith(("int", "uint", "float", "bfloat"))
    return not isinstance(value, bool) and is_real and tuple(getattr(value, "shape", ())) == ()
