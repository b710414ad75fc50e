"""Layer normalisation with weight and bias, with the residual addition before it when there is one.

    h = x + residual                                     rounded to the dtype of x
    y = (h - mean(h)) * rsqrt(var(h) + eps) * weight + bias

in float32, rounded once at the end (Ba, Kiros & Hinton 2016, "Layer Normalization";
``torch.nn.functional.layer_norm``).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import as_rows, launch, next_power_of_2, settings


@triton.jit
def layer_norm_kernel(
    X, R, W, B, Y, H, eps, stride_x, stride_r, rows, N: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):  # fmt: skip
    """One program per ROWS rows. Y and H are contiguous."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    cols = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (cols < N)
    x = tl.load(X + row * stride_x + cols, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        r = tl.load(R + row * stride_r + cols, mask=inside, other=0.0).to(tl.float32)
        h = (x + r).to(H.dtype.element_ty)
        tl.store(H + row * N + cols, h, mask=inside)
        x = h.to(tl.float32)
    mean = (tl.sum(x, 1) / N)[:, None]
    centred = tl.where(inside, x - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 1) / N + eps)[:, None]
    w = tl.load(W + cols, mask=cols < N, other=0.0).to(tl.float32)
    b = tl.load(B + cols, mask=cols < N, other=0.0).to(tl.float32)
    tl.store(Y + row * N + cols, (centred * rstd * w + b).to(Y.dtype.element_ty), mask=inside)


def layer_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(y, h)``; without ``residual`` ``h`` is ``x`` itself.

    Args:
        x: (..., n), of any strides.
        residual: like ``x``, or None.
        weight: (n,).
        bias: (n,).
        eps: added to the variance.
    """
    n = x.shape[-1]
    flat = as_rows(x)
    other = flat if residual is None else as_rows(residual)
    y = torch.empty(flat.shape, dtype=x.dtype, device=x.device)
    h = y if residual is None else torch.empty_like(y)
    if flat.shape[0]:
        row = settings("layer_norm", x.device)
        launch(
            layer_norm_kernel, (triton.cdiv(flat.shape[0], row.tile["ROWS"]),), row,
            flat, other, weight, bias, y, h, eps, flat.stride(0), other.stride(0), flat.shape[0],
            N=n, BLOCK=next_power_of_2(n), HAS_RESIDUAL=residual is not None,
        )  # fmt: skip
    return y.view(x.shape), x if residual is None else h.view(x.shape)
