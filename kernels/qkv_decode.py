"""One token into attention: RMSNorm, the three projections, rotary embedding and the append to the KV cache.

    n = rms_norm(x);  q, k, v = Wq n, Wk n, Wv n;  q, k = rotary(q, k, position - first)
    cache_k[b, :, position] = k;  cache_v[b, :, position] = v

A program holds ROWS pairs of rows (i, i + head_dim / 2) of one head, so both partners of the rotation are at hand
without repacking the weights. Programs of one block of weights are neighbours over the batch: the second finds them in
L2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import launch, next_power_of_2, settings
from .matvec import inverse_rms, normed_matvec, prefetch_weights, scaled_rows, tile_constants, variant, wait_for_inputs
from .rotary import rotate


@triton.jit
def qkv_decode_kernel(
    X, G, WQ, WK, WV, SQ, SK, SV, Cos, Sin, First, Position, Q, CacheK, CacheV, eps, stride_b, stride_h, capacity,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, K: tl.constexpr, K_PADDED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PREFETCH: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr,
    INT8: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program (b, block): ROWS rotation pairs for batch row b."""
    b = tl.program_id(0).to(tl.int64)
    BLOCKS: tl.constexpr = (D // 2 + ROWS - 1) // ROWS
    head = tl.program_id(1) // BLOCKS
    pair = tl.program_id(1) % BLOCKS * ROWS + tl.arange(0, ROWS)
    keep_rows = pair < D // 2
    is_q = head < HEADS
    is_k = head < HEADS + KV_HEADS
    kv_head = head - HEADS
    if not is_k:
        kv_head = kv_head - KV_HEADS
    W = tl.where(is_q, WQ, tl.where(is_k, WK, WV))
    local = tl.where(is_q, head, kv_head)
    row = local * D + pair
    tile1 = W + row[:, None].to(tl.int64) * K + tl.arange(0, BLOCK_K)[None, :]
    tile2 = tile1 + (D // 2) * K
    tiles1 = prefetch_weights(tile1, keep_rows, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    tiles2 = prefetch_weights(tile2, keep_rows, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    wait_for_inputs(PDL)
    x = X + b * K
    rstd = inverse_rms(x, eps, K, K_PADDED)
    y1 = normed_matvec(x, G, rstd, tile1, tiles1, keep_rows, ROWS, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    y2 = normed_matvec(x, G, rstd, tile2, tiles2, keep_rows, ROWS, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    S = tl.where(is_q, SQ, tl.where(is_k, SK, SV))
    y1 = scaled_rows(y1, S, row, keep_rows, INT8)
    y2 = scaled_rows(y2, S, row + D // 2, keep_rows, INT8)
    dtype: tl.constexpr = Q.dtype.element_ty
    y1 = y1.to(dtype)
    y2 = y2.to(dtype)
    position = tl.load(Position + b).to(tl.int64)
    inside = pair < tl.where(position < capacity, D // 2, 0)
    if is_k:
        angle = (position - tl.load(First + b)) * D + pair
        cos = tl.load(Cos + angle, mask=inside, other=0.0)
        sin = tl.load(Sin + angle, mask=inside, other=0.0)
        y1, y2 = rotate(y1, y2, cos, sin)
    if is_q:
        out = Q + (b * HEADS + head) * D + pair
    elif is_k:
        out = CacheK + b * stride_b + kv_head.to(tl.int64) * stride_h + position * D + pair
    else:
        out = CacheV + b * stride_b + kv_head.to(tl.int64) * stride_h + position * D + pair
    tl.store(out, y1, mask=inside)
    tl.store(out + D // 2, y2, mask=inside)


def qkv_decode(
    x: torch.Tensor,
    norm_weight: torch.Tensor,
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    scales: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    first: torch.Tensor,
    position: torch.Tensor,
    cache_k: torch.Tensor,
    cache_v: torch.Tensor,
    q: torch.Tensor,
    eps: float,
    pdl: bool = False,
) -> None:
    """Write ``q`` (batch, heads, head_dim) and one slot of each cache.

    Args:
        x: (batch, hidden), contiguous.
        norm_weight: (hidden,).
        weights: Wq (heads * head_dim, hidden), Wk and Wv (kv_heads * head_dim, hidden).
        scales: per output row, float32, for int8 weights.
        cos: (positions, head_dim) in the dtype of ``x``.
        sin: like ``cos``.
        first: (batch,) int32 on the device: the slot of the oldest token, whose rotary position is 0.
        position: (batch,) int32 on the device: the slot to write.
        cache_k: (batch, kv_heads, capacity, head_dim); a row whose position is past the capacity is not written.
        cache_v: like ``cache_k``, same strides.
        q: output.
        eps: of the norm.
        pdl: overlap with the kernels before and after.
    """
    batch, heads, dim = q.shape
    kv_heads, capacity = cache_k.shape[1], cache_k.shape[2]
    hidden = x.shape[1]
    row = settings(variant("qkv_decode", weights[0]), x.device)
    rows = min(row.tile["ROWS"], next_power_of_2(dim // 2))
    constants = tile_constants(row, rows, dim // 2, weights[0], 2)
    wq, wk, wv = weights
    sq, sk, sv = scales if scales is not None else (norm_weight, norm_weight, norm_weight)
    launch(
        qkv_decode_kernel, (batch, (heads + 2 * kv_heads) * triton.cdiv(dim // 2, rows)), row,
        x, norm_weight, wq, wk, wv, sq, sk, sv, cos, sin, first, position, q, cache_k, cache_v, eps,
        cache_k.stride(0), cache_k.stride(1), capacity,
        HEADS=heads, KV_HEADS=kv_heads, D=dim, K_PADDED=next_power_of_2(hidden), ROWS=rows,
        INT8=scales is not None, PDL=pdl, pdl=pdl, **constants,
    )  # fmt: skip
