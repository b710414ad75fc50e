"""Out of attention for one token: combine the splits, output projection, residual addition.

    w[s] = exp2(l[s] - max l) / sum;  o[h] = round(sum_s w[s] partial[h, s]);  y = residual + round(Wo o)

Each program combines the splits again instead of a launch of its own doing it once: a few KB from L2 against a kernel's
launch gap per layer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import launch, settings
from .matvec import add_residual, prefetch_weights, scaled_rows, variant, wait_for_inputs


@triton.jit
def combine_splits(PartialO, PartialL, head, D: tl.constexpr, SPLITS: tl.constexpr, SPLITS_PADDED: tl.constexpr):
    """Return the attention output of one head, (D,) float32. The split of key 0 is never empty."""
    s = tl.arange(0, SPLITS_PADDED)
    at = head * SPLITS + s
    logs = tl.load(PartialL + at, mask=s < SPLITS, other=float("-inf"))
    weights = tl.exp2(logs - tl.max(logs, 0))
    weights = weights / tl.sum(weights, 0)
    parts = tl.load(PartialO + at[:, None] * D + tl.arange(0, D)[None, :], mask=(s < SPLITS)[:, None], other=0.0)
    return tl.sum(parts * weights[:, None], 0)


@triton.jit
def out_decode_kernel(
    PartialO, PartialL, W, S, R, Y, N: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr,
    SPLITS_PADDED: tl.constexpr, ROWS: tl.constexpr, PREFETCH: tl.constexpr, EVEN_N: tl.constexpr, INT8: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Program (b, block): ROWS output rows for batch row b; a tile of weights is one head wide."""
    b = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    keep_rows = row < N
    dtype: tl.constexpr = Y.dtype.element_ty
    tile = W + row[:, None].to(tl.int64) * (HEADS * D) + tl.arange(0, D)[None, :]
    tiles = prefetch_weights(tile, keep_rows, HEADS * D, D, PREFETCH, True, EVEN_N)
    wait_for_inputs(PDL)
    acc = tl.zeros((ROWS, D), tl.float32)
    for h in tl.static_range(PREFETCH):
        o = combine_splits(PartialO, PartialL, b * HEADS + h, D, SPLITS, SPLITS_PADDED).to(dtype)
        acc += tiles[h].to(tl.float32) * o.to(tl.float32)[None, :]
    for h in range(PREFETCH, HEADS):
        if EVEN_N:
            w = tl.load(tile + h * D, eviction_policy="evict_first")
        else:
            w = tl.load(tile + h * D, mask=keep_rows[:, None], other=0, eviction_policy="evict_first")
        o = combine_splits(PartialO, PartialL, b * HEADS + h, D, SPLITS, SPLITS_PADDED).to(dtype)
        acc += w.to(tl.float32) * o.to(tl.float32)[None, :]
    y = scaled_rows(tl.sum(acc, 1), S, row, keep_rows, INT8)
    add_residual(Y, R, b * N + row, y, keep_rows)


def out_decode(
    partial_o: torch.Tensor,
    partial_l: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    residual: torch.Tensor,
    out: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Write ``out`` (batch, hidden); it may be ``residual`` itself.

    Args:
        partial_o: (batch, heads, splits, head_dim) float32, from :func:`.decode_attention.decode_attention`.
        partial_l: (batch, heads, splits) float32.
        weight: (hidden, heads * head_dim).
        scale: (hidden,) float32, for int8 weights.
        residual: (batch, hidden), contiguous.
        out: output.
        pdl: overlap with the kernels before and after.
    """
    batch, heads, splits, dim = partial_o.shape
    n = out.shape[1]
    row = settings(variant("out_decode", weight), residual.device)
    rows = row.tile["ROWS"]
    launch(
        out_decode_kernel, (batch, triton.cdiv(n, rows)), row,
        partial_o, partial_l, weight, residual if scale is None else scale, residual, out,
        N=n, HEADS=heads, D=dim, SPLITS=splits, SPLITS_PADDED=triton.next_power_of_2(splits),
        PREFETCH=min(row.tile["PREFETCH"], heads), EVEN_N=n % rows == 0, INT8=scale is not None, PDL=pdl, pdl=pdl,
    )  # fmt: skip
