"""The numerical steps that have more than one implementation, and the one place that chooses between them."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from . import reference

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the elementwise function that a config calls `hidden_act`; an unknown name is a ValueError."""
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act {name!r} is not supported; known are {', '.join(sorted(ACTIVATIONS))}.")
    return ACTIVATIONS[name]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `reference.rms_norm`."""
    return reference.rms_norm(x, weight, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """See `reference.layer_norm`."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See `reference.rotate`."""
    return reference.rotate(x, cos, sin)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """See `reference.attention`; without the weights. With `causal`, query and key must have the same length."""
    batch, heads, length, dim = query.shape
    groups = heads // key.shape[1]
    if groups > 1 and length == 1 and (mask is None or mask.shape[1] == 1):
        # One query per sequence: the heads of a group become its rows, so the cache is read as it lies.
        query = query.view(batch, key.shape[1], groups, dim)
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)
        return out.reshape(batch, heads, 1, dim)
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=causal, scale=scale, enable_gqa=groups > 1
    )
