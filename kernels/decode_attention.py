"""Attention of one new token against the KV cache, the keys split over programs ("Flash-Decoding", Dao et al. 2023).

    o[h] = sum_j softmax_j(scale * q[h]·k[h // group, j]) v[h // group, j]     for first <= j <= position

All query heads that share a key head go through one ``tl.dot`` (padded to 16 rows). The length is read from device
memory and the number of splits is fixed, so one captured launch serves every length; a split beyond the length writes
an empty share. `first` skips the padding of a prompt padded on the left. Partial results stay in float32;
:mod:`.out_decode` combines them in its first lines.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .attention import LOG2_E
from .launch import launch, next_power_of_2, settings
from .matvec import wait_for_inputs


@triton.jit
def decode_attention_kernel(
    Q, K, V, First, Position, PartialO, PartialL, scale_log2, stride_b, stride_h, capacity,
    HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, D: tl.constexpr,
    BLOCK_N: tl.constexpr, SPLITS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program (b * kv_heads + kv_head, split)."""
    KV_HEADS: tl.constexpr = HEADS // GROUP
    b = (tl.program_id(0) // KV_HEADS).to(tl.int64)
    kv_head = (tl.program_id(0) % KV_HEADS).to(tl.int64)
    split = tl.program_id(1)
    members = tl.arange(0, GROUP_PADDED)
    is_member = members < GROUP
    d = tl.arange(0, D)
    wait_for_inputs(PDL)
    first = tl.load(First + b)
    end = tl.minimum(tl.load(Position + b) + 1, capacity)
    chunk = tl.cdiv(tl.cdiv(end - first, SPLITS), BLOCK_N) * BLOCK_N
    low = first + split * chunk
    high = tl.minimum(low + chunk, end)
    head = b * HEADS + kv_head * GROUP + members
    q = tl.load(Q + head[:, None] * D + d[None, :], mask=is_member[:, None], other=0.0)
    k_base = K + b * stride_b + kv_head * stride_h
    v_base = V + b * stride_b + kv_head * stride_h
    peak = tl.full((GROUP_PADDED,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP_PADDED,), tl.float32)
    acc = tl.zeros((GROUP_PADDED, D), tl.float32)
    for start in range(low, high, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        inside = keys < high
        k = tl.load(k_base + keys[None, :] * D + d[:, None], mask=inside[None, :], other=0.0)
        s = tl.where(inside[None, :], tl.dot(q, k, input_precision="ieee"), float("-inf"))
        new_peak = tl.maximum(peak, tl.max(s, 1) * scale_log2)
        p = tl.exp2(s * scale_log2 - new_peak[:, None])
        alpha = tl.exp2(peak - new_peak)
        total = total * alpha + tl.sum(p, 1)
        v = tl.load(v_base + keys[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * alpha[:, None], input_precision="ieee")
        peak = new_peak
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    at = head * SPLITS + split
    tl.store(PartialO + at[:, None] * D + d[None, :], acc / total[:, None], mask=is_member[:, None])
    tl.store(PartialL + at, tl.where(empty, float("-inf"), peak + tl.log2(total)), mask=is_member)


def split_count(kv_heads: int, device: torch.device) -> int:
    """Return into how many parts the keys of one head are split: programs for a whole GPU at batch 1, not more.

    Every program of `out_decode` reads all parts of all heads, so parts beyond that cost more than they bring: 32 heads
    in 16 parts are 128 KB for each of 256 programs.
    """
    most = settings("decode_attention", device).tile["SPLITS"]
    return min(most, next_power_of_2(triton.cdiv(128, kv_heads)))


def decode_attention(
    q: torch.Tensor,
    cache_k: torch.Tensor,
    cache_v: torch.Tensor,
    first: torch.Tensor,
    position: torch.Tensor,
    partial_o: torch.Tensor,
    partial_l: torch.Tensor,
    scale: float,
    pdl: bool = False,
) -> None:
    """Write each split's share of the attention output and the log2 of its weight.

    Args:
        q: (batch, heads, head_dim), contiguous, head_dim a power of two.
        cache_k: (batch, kv_heads, capacity, head_dim), the last two dimensions contiguous.
        cache_v: like ``cache_k``, same strides.
        first: (batch,) int32 on the device: the slot of the oldest token.
        position: (batch,) int32 on the device: the slot of the newest token.
        partial_o: output, (batch, heads, splits, head_dim) float32.
        partial_l: output, (batch, heads, splits) float32; -inf for a split with no key.
        scale: factor on the scores, positive.
        pdl: overlap with the kernels before and after.
    """
    batch, heads, dim = q.shape
    kv_heads, capacity = cache_k.shape[1], cache_k.shape[2]
    group = heads // kv_heads
    row = settings("decode_attention/float32" if q.dtype == torch.float32 else "decode_attention", q.device)
    splits = partial_l.shape[2]
    launch(
        decode_attention_kernel, (batch * kv_heads, splits), row,
        q, cache_k, cache_v, first, position, partial_o, partial_l, scale * LOG2_E,
        cache_k.stride(0), cache_k.stride(1), capacity,
        HEADS=heads, GROUP=group, GROUP_PADDED=max(16, next_power_of_2(group)), D=dim, SPLITS=splits, PDL=pdl, pdl=pdl,
    )  # fmt: skip
