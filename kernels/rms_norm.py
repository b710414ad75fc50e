"""Root-mean-square normalisation, with the residual addition before it when there is one.

    h = x + residual                      rounded to the dtype of x
    y = weight * round(h * rsqrt(mean(h²) + eps))

The mean is taken in float32 and the normalised value is rounded to the input dtype before the weight multiplies it, as
in Transformers' ``LlamaRMSNorm`` (Zhang & Sennrich 2019, "Root Mean Square Layer Normalization").

Backward, with n = h * r and r = rsqrt(mean(h²) + eps):

    dh = r * (g - n * mean(g * n)),  g = dy * weight;   dweight = sum over rows of dy * n
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import as_rows, launch, next_power_of_2, settings


@triton.jit
def rms_norm_kernel(
    X, R, W, Y, H, eps, stride_x, stride_r, rows, N: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
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
    rstd = tl.rsqrt(tl.sum(x * x, 1) / N + eps)[:, None]
    w = tl.load(W + cols, mask=cols < N, other=0.0)
    tl.store(Y + row * N + cols, ((x * rstd).to(Y.dtype.element_ty) * w).to(Y.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm_backward_kernel(DY, X, W, DX, DW, eps, rows, N: tl.constexpr, BLOCK: tl.constexpr):
    """Program p takes rows p, p + programs, …; its share of dweight goes to row p of DW (programs, N), in float32."""
    first = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    inside = cols < N
    w = tl.load(W + cols, mask=inside, other=0.0).to(tl.float32)
    dw = tl.zeros((BLOCK,), tl.float32)
    for row in range(first, rows, tl.num_programs(0)):
        at = (tl.zeros((BLOCK,), tl.int64) + row) * N + cols
        x = tl.load(X + at, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(DY + at, mask=inside, other=0.0).to(tl.float32)
        rstd = tl.rsqrt(tl.sum(x * x, 0) / N + eps)
        n = x * rstd
        g = dy * w
        dw += dy * n
        dx = rstd * (g - n * (tl.sum(g * n, 0) / N))
        tl.store(DX + at, dx.to(DX.dtype.element_ty), mask=inside)
    tl.store(DW + first.to(tl.int64) * N + cols, dw, mask=inside)


def rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(y, h)``; without ``residual`` ``h`` is ``x`` itself.

    Args:
        x: (..., n), of any strides.
        residual: like ``x``, or None.
        weight: (n,).
        eps: added to the mean square.
    """
    n = x.shape[-1]
    flat = as_rows(x)
    other = flat if residual is None else as_rows(residual)
    y = torch.empty(flat.shape, dtype=x.dtype, device=x.device)
    h = y if residual is None else torch.empty_like(y)
    if flat.shape[0]:
        row = settings("rms_norm", x.device)
        launch(
            rms_norm_kernel, (triton.cdiv(flat.shape[0], row.tile["ROWS"]),), row,
            flat, other, weight, y, h, eps, flat.stride(0), other.stride(0), flat.shape[0],
            N=n, BLOCK=next_power_of_2(n), HAS_RESIDUAL=residual is not None,
        )  # fmt: skip
    return y.view(x.shape), x if residual is None else h.view(x.shape)


def rms_norm_backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients ``(dx, dweight)`` of ``rms_norm(x, None, weight, eps)``; the sum over rows has a fixed
    order.
    """
    n = x.shape[-1]
    flat, grad = x.reshape(-1, n).contiguous(), dy.reshape(-1, n).contiguous()
    rows = flat.shape[0]
    programs = max(1, min(rows, 128))
    dx = torch.empty_like(flat)
    dw = torch.empty(programs, n, dtype=torch.float32, device=x.device)
    launch(
        rms_norm_backward_kernel, (programs,), settings("rms_norm", x.device),
        grad, flat, weight, dx, dw, eps, rows, N=n, BLOCK=next_power_of_2(n),
    )  # fmt: skip
    return dx.view(x.shape), dw.sum(0).to(weight.dtype)
