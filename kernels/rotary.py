"""Rotary position embedding of queries and keys in one launch.

    y[i]         = x[i] * cos[i] - x[i + d/2] * sin[i]
    y[i + d/2]   = x[i + d/2] * cos[i] + x[i] * sin[i]            for i < d/2

with every product and sum rounded to the dtype of x, as Transformers' ``apply_rotary_pos_emb`` does in eager mode
(Su et al. 2021, "RoFormer").
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import launch, next_power_of_2, settings


@triton.jit
def rounded_product(x, y):
    """Return x * y rounded to the type of x, as float32."""
    return (x.to(tl.float32) * y.to(tl.float32)).to(x.dtype).to(tl.float32)


@triton.jit
def rotate(x1, x2, cos, sin):
    """Rotate the halves (x1, x2) of a head; the inputs and outputs have the activation dtype.

    Products and sums are rounded one by one. That takes a launch without fusion too (`Settings.fp_fusion`): the
    compiler turns the roundings here into arithmetic in the narrow type, which it would fuse on some architectures.
    """
    y1 = rounded_product(x1, cos) - rounded_product(x2, sin)
    y2 = rounded_product(x2, cos) + rounded_product(x1, sin)
    return y1.to(x1.dtype), y2.to(x1.dtype)


@triton.jit
def rotary_kernel(
    Q, K, QO, KO, Cos, Sin, sqb, sqs, sqh, skb, sks, skh, scb, scs, length,
    HEADS_Q: tl.constexpr, HEADS_K: tl.constexpr, HALF: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program per token: all its query heads, then all its key heads. The outputs are contiguous."""
    token = tl.program_id(0).to(tl.int64)
    b = token // length
    s = token % length
    heads = tl.arange(0, BLOCK_H)[:, None]
    d = tl.arange(0, BLOCK_D)[None, :]
    cos = tl.load(Cos + b * scb + s * scs + d, mask=d < HALF, other=0.0)
    sin = tl.load(Sin + b * scb + s * scs + d, mask=d < HALF, other=0.0)
    inside = (heads < HEADS_Q) & (d < HALF)
    at = Q + b * sqb + s * sqs + heads * sqh + d
    y1, y2 = rotate(tl.load(at, mask=inside, other=0.0), tl.load(at + HALF, mask=inside, other=0.0), cos, sin)
    out = QO + (token * HEADS_Q + heads) * (2 * HALF) + d
    tl.store(out, y1, mask=inside)
    tl.store(out + HALF, y2, mask=inside)
    inside = (heads < HEADS_K) & (d < HALF)
    at = K + b * skb + s * sks + heads * skh + d
    y1, y2 = rotate(tl.load(at, mask=inside, other=0.0), tl.load(at + HALF, mask=inside, other=0.0), cos, sin)
    out = KO + (token * HEADS_K + heads) * (2 * HALF) + d
    tl.store(out, y1, mask=inside)
    tl.store(out + HALF, y2, mask=inside)


def rotary(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rotated ``(q, k)``, contiguous as (batch, tokens, heads, head_dim).

    Args:
        q: (batch, tokens, heads, head_dim), last stride 1.
        k: (batch, tokens, kv_heads, head_dim), last stride 1.
        cos: (batch or 1, tokens, head_dim) in the dtype of ``q``; its two halves are equal, the first is read.
        sin: like ``cos``.
    """
    batch, length, heads, dim = q.shape
    kv_heads = k.shape[2]
    out_q = torch.empty((batch, length, heads, dim), dtype=q.dtype, device=q.device)
    out_k = torch.empty((batch, length, kv_heads, dim), dtype=k.dtype, device=k.device)
    row = 0 if cos.shape[0] == 1 else cos.stride(0)
    if batch * length:
        launch(
            rotary_kernel, (batch * length,), settings("rotary", q.device),
            q, k, out_q, out_k, cos, sin, q.stride(0), q.stride(1), q.stride(2),
            k.stride(0), k.stride(1), k.stride(2), row, cos.stride(1), length,
            HEADS_Q=heads, HEADS_K=kv_heads, HALF=dim // 2,
            BLOCK_H=next_power_of_2(max(heads, kv_heads)), BLOCK_D=next_power_of_2(dim // 2),
        )  # fmt: skip
    return out_q, out_k
