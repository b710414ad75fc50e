"""The numerical steps that have more than one implementation, and the one place that chooses between them.

Where no gradients are recorded, steps whose input nobody needs afterwards overwrite it: on a CPU a fresh large tensor
costs more in page faults than the arithmetic that fills it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh") if torch.is_grad_enabled() else torch.ops.aten.gelu_(x, approximate="tanh")


def _relu(x: Tensor) -> Tensor:
    return F.relu(x, inplace=not torch.is_grad_enabled())


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not torch.is_grad_enabled())


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": _gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": _relu,
    "silu": _silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the elementwise function that a config calls `hidden_act`; it may overwrite its input.

    An unknown name is a ValueError.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act {name!r} is not supported; known are {', '.join(sorted(ACTIVATIONS))}.")
    return ACTIVATIONS[name]


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y; may overwrite `x`."""
    return x + y if torch.is_grad_enabled() or x.dtype != y.dtype else x.add_(y)  # dtypes differ under autocast


def multiply(x: Tensor, y: Tensor) -> Tensor:
    """x · y; may overwrite `x`."""
    return x * y if torch.is_grad_enabled() or x.dtype != y.dtype else x.mul_(y)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `reference.rms_norm`."""
    if x.dtype == torch.float32:
        return F.rms_norm(x, weight.shape, weight, eps)
    return reference.rms_norm(x, weight, eps)  # torch's own rounds once at the end, Llama before the weight too


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """See `reference.layer_norm`."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See `reference.rotate`."""
    if torch.is_grad_enabled() or x.shape[2] == 1:
        return reference.rotate(x, cos, sin)
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half] -= x[..., half:] * sin[..., :half]
    out[..., half:] += x[..., :half] * sin[..., half:]
    return out


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
