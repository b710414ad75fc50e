"""Which key each query may attend to, from what a caller passes as `attention_mask` and `position_ids`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import reference


class Visible(NamedTuple):
    """Which keys a query may attend to: those that `mask` has, of those up to its own position if `causal`."""

    mask: Tensor | None
    causal: bool


def is_surely(condition: Tensor) -> bool:
    """Whether `condition`, one bool, is known to be true; no value is known while `torch.compile` traces.

    For shortcuts only: the way taken when this is False must be right in either case.
    """
    return not torch.compiler.is_compiling() and bool(condition)


def causal_mask(
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    *,
    batch: int,
    queries: int,
    past: int,
    cached: bool,
    device: torch.device,
    keys_alone: bool = False,
) -> Visible:
    """Return what `ops.attention` takes. With `keys_alone`, padding of a prompt is a mask of its keys, (batch, 1, 1,
    keys), beside `causal`; otherwise the mask has a row for every query.

    `attention_mask` is None, (batch, past + queries) with 1 for tokens and 0 for padding, or 4-D, which is used as it
    is (bool or additive). Without a mask and a cache, `position_ids` (batch or 1, queries) that jump mark sequences
    packed into one row, which do not see each other. Raises ValueError for another number of dimensions or length.
    """
    if attention_mask is not None and attention_mask.ndim == 4:
        return Visible(attention_mask.to(device), False)
    keys = past + queries
    packed = None
    if attention_mask is not None:
        if attention_mask.ndim != 2 or attention_mask.shape[1] != keys:
            raise ValueError(
                f"attention_mask must be 4-D, or have the shape (batch, {keys}), one column for each of {past} "
                f"cached and {queries} new tokens; got {tuple(attention_mask.shape)}."
            )
        attention_mask = attention_mask.to(device=device, dtype=torch.bool)
        if is_surely(attention_mask.all()):
            attention_mask = None
    elif position_ids is not None and not cached:
        packed = _packed(position_ids.expand(batch, -1))
    if attention_mask is None and packed is None and (queries == 1 or past == 0):
        return Visible(None, queries > 1)
    if keys_alone and past == 0 and queries > 1 and packed is None and attention_mask is not None:
        return Visible(attention_mask[:, None, None, :], True)
    visible = reference.below_diagonal(queries, keys, device)
    if attention_mask is not None:
        visible = visible & attention_mask[:, None, None, :]
    if packed is not None:
        visible = visible & (packed[:, None, :, None] == packed[:, None, None, :])
    return Visible(visible, False)


def _packed(position_ids: Tensor) -> Tensor | None:
    """Number the packed sequences of each row: (batch, queries); None if every row is one sequence."""
    jumps = torch.diff(position_ids, prepend=position_ids[:, :1] - 1, dim=-1) != 1
    return None if is_surely(~jumps.any()) else jumps.cumsum(-1)
