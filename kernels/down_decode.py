"""Second half of the MLP for one token: the down projection and the residual addition.

y = residual + round(Wd x)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import launch, settings
from .matvec import (
    add_residual,
    load_row,
    load_weights,
    prefetch_weights,
    scaled_rows,
    tile_constants,
    variant,
    wait_for_inputs,
)


@triton.jit
def down_decode_kernel(
    X, W, S, R, Y, N: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr,
    PREFETCH: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr, INT8: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program (b, block): ROWS output rows for batch row b."""
    b = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    keep_rows = row < N
    tile = W + row[:, None].to(tl.int64) * K + tl.arange(0, BLOCK_K)[None, :]
    tiles = prefetch_weights(tile, keep_rows, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    wait_for_inputs(PDL)
    acc = tl.zeros((ROWS, BLOCK_K), tl.float32)
    for j in tl.static_range(PREFETCH):
        acc += tiles[j].to(tl.float32) * load_row(X + b * K, j * BLOCK_K, K, BLOCK_K, EVEN_K).to(tl.float32)[None, :]
    for column in range(PREFETCH * BLOCK_K, K, BLOCK_K):
        w = load_weights(tile, column, keep_rows, K, BLOCK_K, EVEN_K, EVEN_N)
        acc += w.to(tl.float32) * load_row(X + b * K, column, K, BLOCK_K, EVEN_K).to(tl.float32)[None, :]
    y = scaled_rows(tl.sum(acc, 1), S, row, keep_rows, INT8)
    add_residual(Y, R, b * N + row, y, keep_rows)


def down_decode(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    residual: torch.Tensor,
    out: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Write ``out`` (batch, hidden); it may be ``residual`` itself.

    Args:
        x: (batch, intermediate), contiguous.
        weight: (hidden, intermediate).
        scale: (hidden,) float32, for int8 weights.
        residual: (batch, hidden), contiguous.
        out: output.
        pdl: overlap with the kernels before and after.
    """
    batch = x.shape[0]
    n = out.shape[1]
    row = settings(variant("down_decode", weight), x.device)
    rows = row.tile["ROWS"]
    launch(
        down_decode_kernel, (batch, triton.cdiv(n, rows)), row,
        x, weight, residual if scale is None else scale, residual, out,
        N=n, INT8=scale is not None, PDL=pdl, pdl=pdl, **tile_constants(row, rows, n, weight),
    )  # fmt: skip
