"""Attention of many query rows: bidirectional for the vision tower, causal with grouped heads for the text prefill.

    o[i] = sum_j softmax_j(scale * q[i]·k[j]) v[j]     over the keys j that row i may see

One pass over the keys with a running maximum and sum (Milakov & Gimelshein 2018, "Online normalizer calculation for
softmax"; Dao 2023, "FlashAttention-2"). Two habits keep the inner loop short: the maximum is taken of the raw scores,
so that scale and subtraction are one multiply-add into exp2, and blocks of keys that no row has to mask run without
comparisons. A head_dim that is no power of two is split (72 = 64 + 8, the 8 padded to 16), never padded to the next
one. A row that sees no key at all gives zeros.
"""

from __future__ import annotations

from itertools import product

import torch
import triton
import triton.language as tl

from .launch import launch, next_power_of_2, settings

LOG2_E = 1.4426950408889634


@triton.jit
def load_tile(tile, inside, narrow, MASK_KEYS: tl.constexpr, MASK_DIM: tl.constexpr):
    """Load a tile of keys or values; the two masks are broadcastable and used only where asked for."""
    if MASK_KEYS and MASK_DIM:
        return tl.load(tile, mask=inside & narrow, other=0.0)
    elif MASK_KEYS:
        return tl.load(tile, mask=inside, other=0.0)
    elif MASK_DIM:
        return tl.load(tile, mask=narrow, other=0.0)
    else:
        return tl.load(tile)


@triton.jit
def attend(
    acc0, acc1, total, peak, q0, q1, k0_tile, k1_tile, v0_tile, v1_tile, keep_tile, start, n_keys, position, narrow,
    scale_log2, stride_k, stride_v, BLOCK_N: tl.constexpr, D1: tl.constexpr, D1_PADDED: tl.constexpr,
    BOUNDARY: tl.constexpr, CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr,
):  # fmt: skip
    """Fold one block of keys into the running result. BOUNDARY: some row must not see some key of this block."""
    keys = start + tl.arange(0, BLOCK_N)
    inside = keys < n_keys
    k0 = load_tile(k0_tile + start * stride_k, inside[None, :], inside[None, :], BOUNDARY, False)
    s = tl.dot(q0, k0, input_precision="ieee")
    if D1 > 0:
        k1 = load_tile(k1_tile + start * stride_k, inside[None, :], narrow[:, None], BOUNDARY, D1_PADDED)
        s = tl.dot(q1, k1, s, input_precision="ieee")
    if BOUNDARY:
        visible = inside[None, :]
        if CAUSAL:
            visible = visible & (keys[None, :] <= position[:, None])
        s = tl.where(visible, s, float("-inf"))
    if HAS_MASK:
        keep = load_tile(keep_tile + start, inside[None, :], inside[None, :], BOUNDARY, False)
        s = tl.where(keep != 0, s, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(s, 1) * scale_log2)
    if HAS_MASK:
        base = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    else:
        base = new_peak
    p = tl.exp2(s * scale_log2 - base[:, None])
    alpha = tl.exp2(peak - base)
    total = total * alpha + tl.sum(p, 1)
    acc0 = acc0 * alpha[:, None]
    v0 = load_tile(v0_tile + start * stride_v, inside[:, None], inside[:, None], BOUNDARY, False)
    p = p.to(v0.dtype)
    acc0 = tl.dot(p, v0, acc0, input_precision="ieee")
    if D1 > 0:
        v1 = load_tile(v1_tile + start * stride_v, inside[:, None], narrow[None, :], BOUNDARY, D1_PADDED)
        acc1 = tl.dot(p, v1, acc1 * alpha[:, None], input_precision="ieee")
    return acc0, acc1, total, new_peak


@triton.jit
def attention_kernel(
    Q, K, V, O, Keep, scale_log2, sqb, sqm, sqh, skb, skn, skh, svb, svn, svh, sob, som, soh, keep_b, keep_m,
    heads, group, M, N, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr,
    FULL_MASK: tl.constexpr, EVEN_N: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """One program per BLOCK_M query rows of one head; programs of one head are neighbours, for its keys stay in L2.

    Strides are counted in UNITs of values: heads of 72 values lie 8 apart, which the compiler must know to load 16
    bytes at a time, and by itself it only notices multiples of 16.
    """
    sqb, sqm, sqh = sqb * UNIT, sqm * UNIT, sqh * UNIT
    skb, skn, skh = skb * UNIT, skn * UNIT, skh * UNIT
    svb, svn, svh = svb * UNIT, svn * UNIT, svh * UNIT
    sob, som, soh = sob * UNIT, som * UNIT, soh * UNIT
    blocks = tl.cdiv(M, BLOCK_M)
    first = tl.program_id(0) % blocks * BLOCK_M
    b = (tl.program_id(0) // blocks // heads).to(tl.int64)
    h = (tl.program_id(0) // blocks % heads).to(tl.int64)
    D1_PADDED: tl.constexpr = D0 + D1 > D
    SPLIT: tl.constexpr = D1 if D1 > 0 else 16
    rows = first + tl.arange(0, BLOCK_M)
    position = rows + (N - M)
    keys = tl.arange(0, BLOCK_N)
    d0 = tl.arange(0, D0)
    d1 = D0 + tl.arange(0, SPLIT)
    narrow = d1 < D
    q_row = Q + b * sqb + h * sqh + rows[:, None] * sqm
    k_base = K + (b * skb + (h // group) * skh)
    v_base = V + b * svb + (h // group) * svh
    q0 = tl.load(q_row + d0[None, :], mask=rows[:, None] < M, other=0.0)
    q1 = q0
    if D1 > 0:
        q1 = tl.load(q_row + d1[None, :], mask=(rows[:, None] < M) & narrow[None, :], other=0.0)
    k0_tile = k_base + keys[None, :] * skn + d0[:, None]
    k1_tile = k_base + keys[None, :] * skn + d1[:, None]
    v0_tile = v_base + keys[:, None] * svn + d0[None, :]
    v1_tile = v_base + keys[:, None] * svn + d1[None, :]
    if FULL_MASK:
        keep_tile = Keep + b * keep_b + (tl.minimum(rows, M - 1) * keep_m)[:, None] + keys[None, :]
    else:
        keep_tile = Keep + b * keep_b + keys[None, :]
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc0 = tl.zeros((BLOCK_M, D0), tl.float32)
    acc1 = tl.zeros((BLOCK_M, SPLIT), tl.float32)
    if CAUSAL:
        end = tl.minimum(N, first + BLOCK_M + (N - M))
        plain = (first + (N - M) + 1) // BLOCK_N * BLOCK_N
    else:
        end = N
        plain = N // BLOCK_N * BLOCK_N
        if EVEN_N:
            plain = N
    for start in range(0, plain, BLOCK_N):
        start = tl.multiple_of(start, BLOCK_N)
        acc0, acc1, total, peak = attend(
            acc0, acc1, total, peak, q0, q1, k0_tile, k1_tile, v0_tile, v1_tile, keep_tile, start, N, position, narrow,
            scale_log2, skn, svn, BLOCK_N, D1, D1_PADDED, False, CAUSAL, HAS_MASK,
        )  # fmt: skip
    if CAUSAL or not EVEN_N:
        for start in range(plain, end, BLOCK_N):
            start = tl.multiple_of(start, BLOCK_N)
            acc0, acc1, total, peak = attend(
                acc0, acc1, total, peak, q0, q1, k0_tile, k1_tile, v0_tile, v1_tile, keep_tile, start, N, position,
                narrow, scale_log2, skn, svn, BLOCK_N, D1, D1_PADDED, True, CAUSAL, HAS_MASK,
            )  # fmt: skip
    if HAS_MASK:
        total = tl.where(total == 0.0, 1.0, total)
    inverse = 1.0 / total
    o_row = O + b * sob + h * soh + rows[:, None] * som
    tl.store(o_row + d0[None, :], (acc0 * inverse[:, None]).to(O.dtype.element_ty), mask=rows[:, None] < M)
    if D1 > 0:
        inside = (rows[:, None] < M) & narrow[None, :]
        tl.store(o_row + d1[None, :], (acc1 * inverse[:, None]).to(O.dtype.element_ty), mask=inside)


def split_head_dim(dim: int) -> tuple[int, int]:
    """Return ``(d0, d1)``: the largest power of two within ``dim`` and the padded rest (0 when there is none)."""
    d0 = 1 << (dim.bit_length() - 1)
    return d0, 0 if d0 == dim else max(16, next_power_of_2(dim - d0))


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor | None, scale: float, causal: bool
) -> torch.Tensor:
    """Return (batch, queries, heads, head_dim), contiguous.

    Args:
        q: (batch, queries, heads, head_dim); a view of a fused QKV buffer will do, only the last stride must be 1.
        k: (batch, keys, kv_heads, head_dim), heads a multiple of kv_heads.
        v: like ``k``.
        keep: bool or int8, nonzero where a key may be seen: (batch, keys) for all queries alike, or
            (batch or 1, queries, keys); last stride 1. None for all.
        scale: factor on the scores, positive.
        causal: query i of m sees the keys up to i + keys - queries.
    """
    batch, m, heads, dim = q.shape
    n, kv_heads = k.shape[1], k.shape[2]
    out = torch.empty((batch, m, heads, dim), dtype=q.dtype, device=q.device)
    if q.dtype == torch.float32:
        variant = "attention/float32"
    elif keep is not None and keep.ndim == 3:
        variant = "attention/full_mask"
    elif causal:
        variant = "attention/causal"
    else:
        variant = "attention" if dim == 64 or dim <= 32 else "attention/wide_head"
    row = settings(variant, q.device)
    d0, d1 = split_head_dim(dim)
    if keep is not None:
        keep = keep.view(torch.int8) if keep.dtype == torch.bool else keep
    keep_b = 0 if keep is None or keep.shape[0] == 1 else keep.stride(0)
    keep_m = keep.stride(1) if keep is not None and keep.ndim == 3 else 0
    strides = [x.stride(i) for x, i in product((q, k, v, out), (0, 1, 2))]
    unit = 8 if all(stride % 8 == 0 for stride in strides) else 1
    if out.numel():
        launch(
            attention_kernel, (triton.cdiv(m, row.tile["BLOCK_M"]) * batch * heads,), row,
            q, k, v, out, q if keep is None else keep, scale * LOG2_E,
            *(stride // unit for stride in strides), keep_b, keep_m, heads, heads // kv_heads, m, n,
            D=dim, D0=d0, D1=d1, CAUSAL=causal, HAS_MASK=keep is not None,
            FULL_MASK=keep is not None and keep.ndim == 3, EVEN_N=n % row.tile["BLOCK_N"] == 0,
            UNIT=unit,
        )  # fmt: skip
    return out
