"""Token ids as callers give them: an int, or lists, arrays and tensors of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class ArrayLike(Protocol):
    """A NumPy array or scalar, or a tensor."""

    def tolist(self) -> Any:
        """Return the values as Python numbers, in nested lists."""


TokenIds = int | Iterable[int] | ArrayLike
"""One id, or a row of ids."""


def as_list(value: object) -> Any:
    """Return an array or a tensor as nested lists (a scalar as a number), and anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def tensor_type_of(value: object) -> str | None:
    """Return what the innermost values are: "np" for NumPy arrays, "pt" for tensors, None for numbers."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    if not hasattr(value, "tolist"):
        return None
    return "np" if type(value).__module__.split(".")[0] == "numpy" else "pt"
