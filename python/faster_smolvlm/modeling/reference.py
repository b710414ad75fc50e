"""The numerical steps of the model in plain torch: the definition that every faster version must equal.

Shapes are written with B batch, S positions of the queries, L positions of the keys, H query heads, G key-value heads,
D values per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm over the last dimension: w · x / sqrt(mean(x²) + eps).

    The statistics are float32 and the quotient is rounded to the dtype of `x` before the weight, as in Llama
    (Zhang and Sennrich 2019, arXiv:1910.07467).
    """
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm over the last dimension: w · (x - mean(x)) / sqrt(var(x) + eps) + b, statistics in float32.

    Ba, Kiros and Hinton 2016, arXiv:1607.06450.
    """
    wide = x.float()
    centred = wide - wide.mean(-1, keepdim=True)
    normed = centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + eps)
    return (normed * weight.float() + bias.float()).to(x.dtype)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool = False,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention: softmax(scale · q·kᵀ + mask)·v, the softmax in float32.

    query (B, H, S, D); key and value (B, G, L, D) with H a multiple of G: head h reads group h // (H / G), as in
    grouped-query attention (arXiv:2305.13245). `mask` broadcasts to (B, H, S, L): bool (True attends) or added to the
    scores; `causal` lets query i see the keys up to i + L - S. Returns the output (B, H, S, D) and the weights
    (B, H, S, L).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(2, 3)) * scale
    if causal:
        visible = below_diagonal(scores.shape[2], scores.shape[3], scores.device)
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, dropout) if dropout > 0.0 else weights
    return weights @ value, weights


def below_diagonal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return bool (1, 1, queries, keys): the last query sees all keys, each one before it one key less."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril_(keys - queries)[None, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, halves paired: (x₁cos - x₂sin, x₂cos + x₁sin); x (B, H, S, D), cos and sin (B, 1, S, D).

    Su et al. 2021, arXiv:2104.09864; the first half of D is paired with the second, as in Llama.
    """
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def pixel_shuffle(x: Tensor, scale: int) -> Tensor:
    """Space to depth over image tokens: (B, h·w, D) with h = w to (B, h·w / scale², D·scale²).

    Token (R, C) of the result is the concatenation of the tokens (R·scale + i, C·scale + j), i before j. Raises
    RuntimeError if the tokens form no square, or its side is no multiple of `scale`.
    """
    batch, tokens, width = x.shape
    side = int(tokens**0.5)
    coarse = side // scale
    if side * side != tokens or coarse * scale != side:
        raise RuntimeError(
            f"pixel shuffle needs a square grid of patches whose side is a multiple of {scale}, got {tokens} patches: "
            f"shape '{[batch, side, side, width]}' is invalid for input of size {x.numel()}."
        )
    x = x.view(batch, coarse, scale, coarse, scale, width).transpose(2, 3)
    return x.reshape(batch, coarse * coarse, width * scale * scale)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Residual addition, then `rms_norm`: returns (rms_norm(h), h) with h = x + residual."""
    h = x + residual
    return rms_norm(h, weight, eps), h


def add_layer_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Residual addition, then `layer_norm`: returns (layer_norm(h), h) with h = x + residual."""
    h = x + residual
    return layer_norm(h, weight, bias, eps), h


def linear(x: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """x·weightᵀ, summed in float32 and rounded once to the dtype of `x`.

    `weight` (N, K) has the dtype of `x`, or is int8 with the float32 `scale` (N,) of its rows.
    """
    out = x.float() @ weight.float().t()
    return (out if scale is None else out * scale).to(x.dtype)


def pixel_shuffle_project(x: Tensor, weight: Tensor, scale: int) -> Tensor:
    """`pixel_shuffle`, then the linear map `weight` (N, D·scale²)."""
    return F.linear(pixel_shuffle(x, scale), weight)


def qkv_decode(
    x: Tensor,
    norm_weight: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    scales: tuple[Tensor, Tensor, Tensor] | None,
    cos: Tensor,
    sin: Tensor,
    first: Tensor,
    position: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    eps: float,
) -> Tensor:
    """One token into attention: norm, projections, rotary positions; returns the queries (B, H, D).

    x (B, hidden); cos and sin (positions, D); position int (B,) is the slot of the caches (B, G, capacity, D) that
    keys and values are written to, first int (B,) that of the oldest token, whose rotary position is 0.
    """
    normed = rms_norm(x, norm_weight, eps)
    q, k, v = (linear(normed, w, s) for w, s in zip(weights, scales or (None, None, None), strict=True))
    dim, rows = cos.shape[-1], torch.arange(x.shape[0], device=x.device)
    slot = position.long()
    cos, sin = cos[slot - first][:, None], sin[slot - first][:, None]
    cache_k[rows, :, slot] = rotate(k.view(x.shape[0], -1, dim), cos, sin)
    cache_v[rows, :, slot] = v.view(x.shape[0], -1, dim)
    return rotate(q.view(x.shape[0], -1, dim), cos, sin)


def decode_attention(
    query: Tensor, cache_k: Tensor, cache_v: Tensor, first: Tensor, position: Tensor, scale: float
) -> Tensor:
    """Attention of one query per row, (B, H, D), to the slots first[b] to position[b] of its caches (B, G, C, D)."""
    slots = torch.arange(cache_k.shape[2], device=query.device)
    visible = (slots >= first[:, None]) & (slots <= position[:, None])
    # A slot that was never written may hold NaN, which a weight of zero does not silence.
    values = cache_v.masked_fill(~visible[:, None, :, None], 0.0)
    keys = cache_k.masked_fill(~visible[:, None, :, None], 0.0)
    return attention(query[:, :, None], keys, values, visible[:, None, None], scale=scale)[0][:, :, 0]


def mlp_decode(
    x: Tensor,
    norm_weight: Tensor,
    gate: Tensor,
    up: Tensor,
    scales: tuple[Tensor, Tensor] | None,
    eps: float,
) -> Tensor:
    """Norm, gate and up projections, silu(gate)·up; (B, hidden) to (B, intermediate)."""
    normed = rms_norm(x, norm_weight, eps)
    gate_scale, up_scale = scales or (None, None)
    return F.silu(linear(normed, gate, gate_scale)) * linear(normed, up, up_scale)


def linear_residual(x: Tensor, weight: Tensor, scale: Tensor | None, residual: Tensor) -> Tensor:
    """residual + linear(x): what ends attention (`out_decode`) and the MLP (`down_decode`)."""
    return residual + linear(x, weight, scale)


def lm_head_argmax(
    x: Tensor, norm_weight: Tensor, weight: Tensor, scale: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Final norm, head and greedy choice: the logits (B, vocabulary) and the lowest index of each row's largest."""
    logits = linear(rms_norm(x, norm_weight, eps), weight, scale)
    return logits, (logits == logits.amax(-1, keepdim=True)).int().argmax(-1)
