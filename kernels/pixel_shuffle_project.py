"""Pixel shuffle and projection into the text space: a matrix product whose left operand is gathered by address.

    y[R, C] = W · concat over dr, dc in 0..s-1 of x[R s + dr, C s + dc]      (dr-major)

A run of D columns of W belongs to one source patch, so the shuffle is one row pointer per block of K and the shuffled
copy is never made.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import largest_power_of_two_divisor, launch, settings


@triton.jit
def pixel_shuffle_project_kernel(
    X, W, Y, M, N, sxb, sxp, SIDE: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program per BLOCK_M output tokens and BLOCK_N outputs."""
    OUT: tl.constexpr = SIDE // S
    K: tl.constexpr = D * S * S
    blocks_n = tl.cdiv(N, BLOCK_N)
    rows = tl.program_id(0) // blocks_n * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(0) % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    image = (rows // (OUT * OUT)).to(tl.int64)
    place = rows % (OUT * OUT)
    corner = place // OUT * (S * SIDE) + place % OUT * S
    k_cols = tl.arange(0, BLOCK_K)
    x_tile = X + (image * sxb + corner * sxp)[:, None] + k_cols[None, :]
    w_tile = W + cols[None, :].to(tl.int64) * K + k_cols[:, None]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, K, BLOCK_K):
        patch = k // D
        offset = (patch // S * SIDE + patch % S) * sxp + k % D
        x = tl.load(x_tile + offset, mask=(rows < M)[:, None], other=0.0)
        w = tl.load(w_tile + k, mask=(cols < N)[None, :], other=0.0)
        acc = tl.dot(x, w, acc, input_precision="ieee")
    out = Y + rows[:, None].to(tl.int64) * N + cols[None, :]
    tl.store(out, acc.to(Y.dtype.element_ty), mask=(rows < M)[:, None] & (cols < N)[None, :])


def pixel_shuffle_project(x: torch.Tensor, weight: torch.Tensor, scale_factor: int) -> torch.Tensor:
    """Return (images, tokens / scale_factor², hidden), contiguous.

    Args:
        x: (images, tokens, d), tokens a square whose side ``scale_factor`` divides; last stride 1; d a multiple of 16.
        weight: (hidden, d * scale_factor²), contiguous.
        scale_factor: s.
    """
    images, tokens, dim = x.shape
    side = round(tokens**0.5)
    m, n = images * (tokens // scale_factor**2), weight.shape[0]
    row = settings("pixel_shuffle_project/float32" if x.dtype == torch.float32 else "pixel_shuffle_project", x.device)
    out = torch.empty((images, tokens // scale_factor**2, n), dtype=x.dtype, device=x.device)
    if m:
        launch(
            pixel_shuffle_project_kernel,
            (triton.cdiv(m, row.tile["BLOCK_M"]) * triton.cdiv(n, row.tile["BLOCK_N"]),), row,
            x, weight, out, m, n, x.stride(0), x.stride(1), SIDE=side, S=scale_factor, D=dim,
            BLOCK_K=largest_power_of_two_divisor(dim, row.tile["BLOCK_K"]),
        )  # fmt: skip
    return out
