"""The Triton kernels as operators of torch: what `torch.compile`, `torch.export` and autograd see of them.

Each operator has three implementations: the kernel on a GPU, the plain formula on a CPU (and the kernel there too, when
Triton's interpreter is on), and the shapes alone for tracing. Gradients follow the formulas of `reference`; RMSNorm has
a kernel for them, the others are worked out in torch. Nothing here imports triton before the first kernel runs.

Tensors may have any strides: what a kernel cannot address as it lies is copied here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.forced import interpreted
from . import reference


def _runs_kernel(x: Tensor) -> bool:
    return x.device.type != "cpu" or interpreted()


def _rows(x: Tensor) -> Tensor:
    """Return `x` with the values of its last dimension side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


@torch.library.custom_op("faster_smolvlm::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `reference.rms_norm`."""
    if not _runs_kernel(x):
        return reference.rms_norm(x, weight, eps).contiguous()
    from ..kernels.rms_norm import rms_norm as kernel

    return kernel(x, None, weight.contiguous(), eps)[0]


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("faster_smolvlm::rms_norm_backward", mutates_args=())
def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of `rms_norm` for `x` and `weight`."""
    if _runs_kernel(x):
        from ..kernels.rms_norm import rms_norm_backward as kernel

        return kernel(grad, x, weight.contiguous(), eps)
    wide, dy = x.float(), grad.float()
    rstd = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    normed, g = wide * rstd, dy * weight.float()
    dx = rstd * (g - normed * (g * normed).mean(-1, keepdim=True))
    return dx.to(x.dtype).contiguous(), (dy * normed).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)


@rms_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(weight)


def _save_rms_norm(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _rms_norm_gradient(ctx, grad):  # type: ignore[no-untyped-def]
    return (*rms_norm_backward(grad, *ctx.saved_tensors, ctx.eps), None)


rms_norm.register_autograd(_rms_norm_gradient, setup_context=_save_rms_norm)


@torch.library.custom_op("faster_smolvlm::add_rms_norm", mutates_args=())
def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `reference.add_rms_norm`."""
    if not _runs_kernel(x):
        y, h = reference.add_rms_norm(x, residual, weight, eps)
        return y.contiguous(), h.contiguous()
    from ..kernels.rms_norm import rms_norm as kernel

    return kernel(x, residual, weight.contiguous(), eps)


@add_rms_norm.register_fake
def _(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


def _save_add_rms_norm(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, _, weight, ctx.eps = inputs
    ctx.save_for_backward(output[1], weight)


def _add_rms_norm_gradient(ctx, grad_y, grad_h):  # type: ignore[no-untyped-def]
    dx, dw = rms_norm_backward(grad_y, *ctx.saved_tensors, ctx.eps)
    dx = dx + grad_h
    return dx, dx, dw, None


add_rms_norm.register_autograd(_add_rms_norm_gradient, setup_context=_save_add_rms_norm)


@torch.library.custom_op("faster_smolvlm::add_layer_norm", mutates_args=())
def add_layer_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `reference.add_layer_norm`; without `residual` the second result is empty."""
    if not _runs_kernel(x):
        h = x if residual is None else x + residual
        y = reference.layer_norm(h, weight, bias, eps).contiguous()
        return y, x.new_empty(0) if residual is None else h.contiguous()
    from ..kernels.layer_norm import layer_norm as kernel

    y, h = kernel(x, residual, weight.contiguous(), bias.contiguous(), eps)
    return y, x.new_empty(0) if residual is None else h


@add_layer_norm.register_fake
def _(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0 if residual is None else x.shape)


def _save_layer_norm(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, residual, weight, _, ctx.eps = inputs
    ctx.has_residual = residual is not None
    ctx.save_for_backward(output[1] if ctx.has_residual else x, weight)


def _layer_norm_gradient(ctx, grad_y, grad_h):  # type: ignore[no-untyped-def]
    h, weight = ctx.saved_tensors
    wide, dy = h.float(), grad_y.float()
    centred = wide - wide.mean(-1, keepdim=True)
    rstd = torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + ctx.eps)
    normed, g = centred * rstd, dy * weight.float()
    dx = rstd * (g - g.mean(-1, keepdim=True) - normed * (g * normed).mean(-1, keepdim=True))
    dx = dx.to(h.dtype) + (grad_h if ctx.has_residual else 0.0)
    rows = tuple(range(h.ndim - 1))
    dweight, dbias = (dy * normed).sum(rows).to(weight.dtype), dy.sum(rows).to(weight.dtype)
    return dx, dx if ctx.has_residual else None, dweight, dbias, None


add_layer_norm.register_autograd(_layer_norm_gradient, setup_context=_save_layer_norm)


@torch.library.custom_op("faster_smolvlm::rotary", mutates_args=())
def rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.rotate` of queries (B, S, H, D) and keys (B, S, G, D); cos and sin (B or 1, S, D)."""
    if not _runs_kernel(query):
        wide_cos, wide_sin = cos[:, :, None], sin[:, :, None]
        return (
            reference.rotate(query, wide_cos, wide_sin).contiguous(),
            reference.rotate(key, wide_cos, wide_sin).contiguous(),
        )
    from ..kernels.rotary import rotary as kernel

    return kernel(_rows(query), _rows(key), cos.contiguous(), sin.contiguous())


@rotary.register_fake
def _(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


def _save_rotary(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(inputs[2], inputs[3])


def _rotary_gradient(ctx, grad_q, grad_k):  # type: ignore[no-untyped-def]
    cos, sin = ctx.saved_tensors
    return (*rotary(grad_q, grad_k, cos, -sin), None, None)


rotary.register_autograd(_rotary_gradient, setup_context=_save_rotary)


@torch.library.custom_op("faster_smolvlm::attention", mutates_args=())
def attention(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float, causal: bool) -> Tensor:
    """`reference.attention` of (B, S, H, D), (B, L, G, D), (B, L, G, D), without the weights.

    `keep` bool (B, L), or (B or 1, S, L), is True for keys that may be seen. A query that sees none gives zeros.
    """
    if not _runs_kernel(query):
        return _attention_formula(query, key, value, keep, scale, causal)[0].contiguous()
    from ..kernels.attention import attention as kernel

    keep = None if keep is None else _rows(keep)
    return kernel(_rows(query), _rows(key), _rows(value), keep, scale, causal)


def _attention_formula(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """Return the output (B, S, H, D) and the weights (B, H, S, L) in float32."""
    groups = query.shape[2] // key.shape[2]
    q, k, v = (x.transpose(1, 2).float() for x in (query, key, value))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.transpose(2, 3)) * scale
    visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    visible = (visible.tril(scores.shape[3] - scores.shape[2]) if causal else visible)[None, None]
    if keep is not None:
        visible = visible & (keep[:, None, None] if keep.ndim == 2 else keep[:, None])
    weights = torch.softmax(scores.masked_fill(~visible, torch.finfo(torch.float32).min), -1) * visible
    return (weights @ v).transpose(1, 2).to(query.dtype), weights


@attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float, causal: bool) -> Tensor:
    return query.new_empty(query.shape)


def _save_attention(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    query, key, value, keep, ctx.scale, ctx.causal = inputs
    ctx.save_for_backward(query, key, value, keep)


def _attention_gradient(ctx, grad):  # type: ignore[no-untyped-def]
    query, key, value, keep = ctx.saved_tensors
    _, weights = _attention_formula(query, key, value, keep, ctx.scale, ctx.causal)
    (batch, length, kv_heads, dim), groups = key.shape, query.shape[2] // key.shape[2]
    q, k, v, do = (x.transpose(1, 2).float() for x in (query, key, value, grad))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    dv = weights.transpose(2, 3) @ do
    dp = do @ v.transpose(2, 3)
    ds = weights * (dp - (dp * weights).sum(-1, keepdim=True)) * ctx.scale
    dq, dk = ds @ k, ds.transpose(2, 3) @ q

    def gather(x: Tensor) -> Tensor:
        return x.view(batch, kv_heads, groups, length, dim).sum(2).transpose(1, 2).to(key.dtype)

    return dq.transpose(1, 2).to(query.dtype), gather(dk), gather(dv), None, None, None


attention.register_autograd(_attention_gradient, setup_context=_save_attention)


@torch.library.custom_op("faster_smolvlm::pixel_shuffle_project", mutates_args=())
def pixel_shuffle_project(x: Tensor, weight: Tensor, scale: int) -> Tensor:
    """See `reference.pixel_shuffle_project`."""
    if not _runs_kernel(x):
        return reference.pixel_shuffle_project(x, weight, scale)
    from ..kernels.pixel_shuffle_project import pixel_shuffle_project as kernel

    return kernel(_rows(x), weight.contiguous(), scale)


@pixel_shuffle_project.register_fake
def _(x: Tensor, weight: Tensor, scale: int) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // scale**2, weight.shape[0])


def _save_project(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, ctx.scale = inputs
    ctx.save_for_backward(x, weight)


def _project_gradient(ctx, grad):  # type: ignore[no-untyped-def]
    x, weight = ctx.saved_tensors
    batch, tokens, width = x.shape
    coarse = round(tokens**0.5) // ctx.scale
    d_shuffled = F.linear(grad, weight.t())
    dx = d_shuffled.view(batch, coarse, coarse, ctx.scale, ctx.scale, width).transpose(2, 3).reshape(x.shape)
    shuffled = reference.pixel_shuffle(x, ctx.scale)
    return dx, grad.flatten(0, 1).t() @ shuffled.flatten(0, 1), None


pixel_shuffle_project.register_autograd(_project_gradient, setup_context=_save_project)
