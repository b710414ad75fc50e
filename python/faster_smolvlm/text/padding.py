"""Padding of token sequences, and their way into tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..quoting import shown
from .call_options import UNLIMITED, PaddingStrategy
from .token_ids import as_list

if TYPE_CHECKING:
    from torch import Tensor

Columns = dict[str, list[list[Any]]]
"""What a tokenizer returns for several texts: by name, one list per text (ids, mask bits, or pairs of offsets)."""


class Padding(NamedTuple):
    """How rows are padded: to `length`, or with None to the longest, rounded up to a multiple of `multiple_of`."""

    length: int | None
    multiple_of: int | None
    side: str

    @classmethod
    def of(
        cls,
        strategy: PaddingStrategy,
        *,
        max_length: int | None,
        multiple_of: int | None,
        side: str,
        model_max_length: int,
    ) -> Padding | None:
        """Read the arguments of a call; None if nothing is to be padded."""
        if strategy is PaddingStrategy.DO_NOT_PAD:
            return None
        if strategy is PaddingStrategy.LONGEST:
            return cls(None, multiple_of, side)
        if max_length is None and model_max_length >= UNLIMITED:
            return None
        return cls(model_max_length if max_length is None else max_length, multiple_of, side)

    def apply(self, columns: Columns, pad_id: int | None) -> None:
        """Pad each row of each column in place; a row that is longer already stays as it is.

        Raises ValueError without a `pad_id`, or for a side other than "left" and "right".
        """
        if pad_id is None:
            raise ValueError(
                "Asking to pad but the tokenizer does not have a padding token. Please select a token to use as "
                "`pad_token` `(tokenizer.pad_token = tokenizer.eos_token e.g.)` or add a new pad token via "
                "`tokenizer.add_special_tokens({'pad_token': '[PAD]'})`."
            )
        if self.side not in ("left", "right"):
            raise ValueError(f"padding_side must be 'left' or 'right', got {shown(self.side)}")
        target = max(map(len, columns["input_ids"]), default=0) if self.length is None else self.length
        if self.multiple_of:
            target = -(-target // self.multiple_of) * self.multiple_of
        fill = {"input_ids": pad_id, "special_tokens_mask": 1, "offset_mapping": (0, 0)}
        for name, rows in columns.items():
            for index, row in enumerate(rows):
                if len(row) < target:
                    padding = [fill.get(name, 0)] * (target - len(row))
                    rows[index] = row + padding if self.side == "right" else padding + row


def encoded_columns(encoded: Mapping[str, object], return_attention_mask: bool | None) -> tuple[Columns, bool]:
    """Return encoded inputs as columns, and whether they were one text only.

    `encoded` maps names to lists, arrays or tensors, at least `input_ids`; a missing mask is added, unless
    `return_attention_mask` is False.
    """
    if "input_ids" not in encoded:
        raise ValueError(
            "You should supply an encoding or a list of encodings to this method that includes input_ids, but you "
            f"provided {list(encoded)}"
        )
    columns: Columns = {key: [as_list(row) for row in as_list(value)] for key, value in encoded.items()}
    single = bool(columns["input_ids"]) and isinstance(columns["input_ids"][0], int)
    if single:
        columns = {key: [value] for key, value in columns.items()}
    if return_attention_mask is not False and "attention_mask" not in columns:
        columns["attention_mask"] = [[1] * len(ids) for ids in columns["input_ids"]]
    return columns, single


def as_tensors(columns: Mapping[str, list[Any]], tensor_type: str) -> Mapping[str, npt.NDArray[np.int64] | Tensor]:
    """Make each column one int64 array ("np") or tensor ("pt") of shape (batch, length).

    Raises ValueError if the rows of a column have different lengths, or for another tensor type.
    """
    kind = getattr(tensor_type, "value", tensor_type)
    if kind not in ("np", "pt"):
        raise ValueError(f"{kind} is not a valid TensorType, please select one of ['pt', 'np']")
    arrays: dict[str, npt.NDArray[np.int64]] = {}
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
