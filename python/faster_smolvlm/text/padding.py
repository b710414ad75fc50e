"""Padding and truncation of token sequences, and their way into tensors."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np


class PaddingStrategy(str, Enum):
    """To which length a batch of sequences is padded."""

    LONGEST = "longest"
    MAX_LENGTH = "max_length"
    DO_NOT_PAD = "do_not_pad"

    @classmethod
    def of(cls, value: Any) -> PaddingStrategy:
        """Read the argument `padding`: a bool, None, a name or a strategy (of Transformers too)."""
        if value is None or value is False:
            return cls.DO_NOT_PAD
        return cls.LONGEST if value is True else _member(cls, value)


class TruncationStrategy(str, Enum):
    """Whether a sequence is cut; the three ways to cut a pair are the same for a single text."""

    LONGEST_FIRST = "longest_first"
    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    DO_NOT_TRUNCATE = "do_not_truncate"

    @classmethod
    def of(cls, value: Any, max_length: int | None, padding: PaddingStrategy) -> TruncationStrategy:
        """Read the argument `truncation`; a `max_length` alone, without padding, truncates."""
        if value is None and max_length is not None and padding is PaddingStrategy.DO_NOT_PAD:
            return cls.LONGEST_FIRST
        if value is None or value is False:
            return cls.DO_NOT_TRUNCATE
        return cls.LONGEST_FIRST if value is True else _member(cls, value)


def _member(kind: Any, value: Any) -> Any:
    name = value.value if isinstance(value, Enum) else value
    try:
        return kind(name)
    except ValueError:
        names = [member.value for member in kind]
        raise ValueError(f"{name!r} is not a valid {kind.__name__}, please select one of {names}") from None


def pad_sequences(
    columns: dict[str, list[Any]], *, length: int | None, multiple_of: int | None, side: str, fill: dict[str, Any]
) -> None:
    """Pad each sequence of each column in place.

    `columns` map a name to one list per sample. All become `length` long, or as long as the longest, rounded up to a
    multiple of `multiple_of`; a longer one stays as it is. `fill` holds what to pad with by column, otherwise 0.
    """
    if side not in ("left", "right"):
        raise ValueError(f"padding_side must be 'left' or 'right', got {side!r}")
    target = max(map(len, columns["input_ids"]), default=0) if length is None else length
    if multiple_of:
        target = -(-target // multiple_of) * multiple_of
    for name, rows in columns.items():
        value = fill.get(name, 0)
        for index, row in enumerate(rows):
            if len(row) < target:
                padding = [value] * (target - len(row))
                rows[index] = row + padding if side == "right" else padding + row


def as_tensors(columns: dict[str, Any], tensor_type: str) -> dict[str, Any]:
    """Make each column one int64 array ("np") or tensor ("pt") of shape (batch, length).

    Raises ValueError where the rows of a column have different lengths, or for another tensor type.
    """
    kind = getattr(tensor_type, "value", tensor_type)
    if kind not in ("np", "pt"):
        raise ValueError(f"{kind} is not a valid TensorType, please select one of ['pt', 'np']")
    arrays = {}
    for name, rows in columns.items():
        if rows and isinstance(rows[0], list) and len({len(row) for row in rows}) > 1:
            raise ValueError(
                "Unable to create tensor, you should probably activate truncation and/or padding with 'padding=True' "
                "'truncation=True' to have batched tensors with the same length. Perhaps your features "
                f"(`{name}` in this case) have excessive nesting (inputs type `list` where type `int` is expected)."
            )
        arrays[name] = np.array(rows, dtype=np.int64)
    if kind == "np":
        return arrays
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}
