"""First half of the gated MLP for one token: RMSNorm, the gate and up projections, SiLU and their product.

    n = rms_norm(x);  y = silu(Wg n) * (Wu n),   silu(a) = a / (1 + exp(-a))

with Wg n, Wu n, the SiLU and the product each rounded to the activation dtype, as Transformers' ``LlamaMLP`` does.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import launch, next_power_of_2, settings
from .matvec import inverse_rms, normed_matvec, prefetch_weights, scaled_rows, tile_constants, variant, wait_for_inputs


@triton.jit
def mlp_decode_kernel(
    X, G, WG, WU, SG, SU, Y, eps, N: tl.constexpr, K: tl.constexpr, K_PADDED: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr, PREFETCH: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr, INT8: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Program (b, block): ROWS rows of both matrices for batch row b."""
    b = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    keep_rows = row < N
    offset = row[:, None].to(tl.int64) * K + tl.arange(0, BLOCK_K)[None, :]
    gates = prefetch_weights(WG + offset, keep_rows, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    ups = prefetch_weights(WU + offset, keep_rows, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    wait_for_inputs(PDL)
    x = X + b * K
    rstd = inverse_rms(x, eps, K, K_PADDED)
    gate = normed_matvec(x, G, rstd, WG + offset, gates, keep_rows, ROWS, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    up = normed_matvec(x, G, rstd, WU + offset, ups, keep_rows, ROWS, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    gate = scaled_rows(gate, SG, row, keep_rows, INT8)
    up = scaled_rows(up, SU, row, keep_rows, INT8)
    dtype: tl.constexpr = Y.dtype.element_ty
    gate = gate.to(dtype).to(tl.float32)
    activated = (gate / (1.0 + tl.exp(-gate))).to(dtype)
    tl.store(Y + b * N + row, (activated * up.to(dtype)).to(dtype), mask=keep_rows)


def mlp_decode(
    x: torch.Tensor,
    norm_weight: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor] | None,
    out: torch.Tensor,
    eps: float,
    pdl: bool = False,
) -> None:
    """Write ``out`` (batch, intermediate).

    Args:
        x: (batch, hidden), contiguous.
        norm_weight: (hidden,).
        gate: (intermediate, hidden).
        up: like ``gate``.
        scales: per output row of gate and up, float32, for int8 weights.
        out: output.
        eps: of the norm.
        pdl: overlap with the kernels before and after.
    """
    batch, hidden = x.shape
    n = out.shape[1]
    row = settings(variant("mlp_decode", gate), x.device)
    rows = row.tile["ROWS"]
    sg, su = scales if scales is not None else (norm_weight, norm_weight)
    launch(
        mlp_decode_kernel, (batch, triton.cdiv(n, rows)), row,
        x, norm_weight, gate, up, sg, su, out, eps,
        N=n, K_PADDED=next_power_of_2(hidden), INT8=scales is not None, PDL=pdl, pdl=pdl,
        **tile_constants(row, rows, n, gate, 2),
    )  # fmt: skip
