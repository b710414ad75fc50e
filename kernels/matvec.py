"""What the decode kernels share: RMSNorm of one row, and rows of weights times that row.

A program takes ROWS output rows of one batch row and walks the K columns in tiles of BLOCK_K. The first PREFETCH tiles
are loaded before the program waits for the kernel before it (:func:`wait_for_inputs`): weights depend on nothing, so
with programmatic dependent launch their way from memory overlaps the end of that kernel. Each batch row is summed alone
and in a fixed order, so a row's result does not depend on the size of the batch.

Weights are (N, K) row-major as in ``nn.Linear``, in the activation dtype or in int8 with one scale per output row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from .launch import Settings, largest_power_of_two_divisor, next_power_of_2


@triton.jit
def wait_for_inputs(PDL: tl.constexpr):
    """Wait until the kernel before has written its results, then let the one after start loading its weights."""
    if PDL:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def inverse_rms(X, eps, K: tl.constexpr, K_PADDED: tl.constexpr):
    """Return 1 / sqrt(mean(x²) + eps) of the K values at X."""
    cols = tl.arange(0, K_PADDED)
    x = tl.load(X + cols, mask=cols < K, other=0.0).to(tl.float32)
    return tl.rsqrt(tl.sum(x * x, 0) / K + eps)


@triton.jit
def load_weights(
    tile, column, keep_rows, K: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr
):
    """Load the tile of weights from ``column`` on; each byte is used once, so it need not stay in cache."""
    if EVEN_K and EVEN_N:
        return tl.load(tile + column, eviction_policy="evict_first")
    inside = keep_rows[:, None] & (column + tl.arange(0, BLOCK_K) < K)[None, :]
    return tl.load(tile + column, mask=inside, other=0, eviction_policy="evict_first")


@triton.jit
def prefetch_weights(
    tile,
    keep_rows,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    COUNT: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_N: tl.constexpr,
):
    """Return the first COUNT tiles as a tuple."""
    tiles = ()
    for j in tl.static_range(COUNT):
        tiles = tiles + (load_weights(tile, j * BLOCK_K, keep_rows, K, BLOCK_K, EVEN_K, EVEN_N),)
    return tiles


@triton.jit
def load_row(X, column, K: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_K: tl.constexpr):
    """Load BLOCK_K values of a row vector from ``column`` on."""
    cols = column + tl.arange(0, BLOCK_K)
    if EVEN_K:
        return tl.load(X + cols)
    return tl.load(X + cols, mask=cols < K, other=0.0)


@triton.jit
def load_normed(X, G, rstd, column, K: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_K: tl.constexpr):
    """Load BLOCK_K values of RMSNorm(x), with Transformers' two roundings, as float32."""
    x = load_row(X, column, K, BLOCK_K, EVEN_K)
    g = load_row(G, column, K, BLOCK_K, EVEN_K)
    return ((x.to(tl.float32) * rstd).to(x.dtype) * g).to(x.dtype).to(tl.float32)


@triton.jit
def fused(w, n, acc):
    """Return acc + w * n in one instruction, also in a kernel that is launched without fusion."""
    w, n = tl.broadcast(w.to(tl.float32), n[None, :])
    return tl.fma(w, n, acc)


@triton.jit
def normed_matvec(
    X, G, rstd, tile, tiles, keep_rows, ROWS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr,
    COUNT: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr,
):  # fmt: skip
    """Return the ROWS sums of weights times RMSNorm(x) in float32; ``tiles`` are the COUNT prefetched ones."""
    acc = tl.zeros((ROWS, BLOCK_K), tl.float32)
    for j in tl.static_range(COUNT):
        n = load_normed(X, G, rstd, j * BLOCK_K, K, BLOCK_K, EVEN_K)
        acc = fused(tiles[j], n, acc)
    for column in range(COUNT * BLOCK_K, K, BLOCK_K):
        w = load_weights(tile, column, keep_rows, K, BLOCK_K, EVEN_K, EVEN_N)
        n = load_normed(X, G, rstd, column, K, BLOCK_K, EVEN_K)
        acc = fused(w, n, acc)
    return tl.sum(acc, 1)


@triton.jit
def scaled_rows(y, S, row, keep_rows, INT8: tl.constexpr):
    """Return the sums ``y`` of the rows, times their scales if the weights are int8."""
    if INT8:
        y *= tl.load(S + row, mask=keep_rows, other=0.0).to(tl.float32)
    return y


@triton.jit
def add_residual(Y, R, at, y, keep_rows):
    """Round the sums ``y``, add the residual at R and write the result to Y, both at ``at``."""
    dtype: tl.constexpr = Y.dtype.element_ty
    residual = tl.load(R + at, mask=keep_rows, other=0.0)
    tl.store(Y + at, (y.to(dtype).to(tl.float32) + residual.to(tl.float32)).to(dtype), mask=keep_rows)


def column_tile(k: int) -> tuple[int, bool]:
    """Return ``(BLOCK_K, EVEN_K)`` for K columns: a power of two that divides K where one does (576 = 9 x 64)."""
    block = largest_power_of_two_divisor(k, 128)
    if block >= 32:
        return block, True
    return min(64, max(16, next_power_of_2(k))), False


def tile_constants(row: Settings, rows: int, n: int, weight: torch.Tensor, matrices: int = 1) -> dict[str, int | bool]:
    """Return the compile-time constants of ``matrices`` like ``weight`` (N, K), walked by tiles of ``rows`` of n rows.

    No more tiles are in flight than fit the registers of a thread: bytes that a loop of its own loads later cost less
    than bytes that are spilled. int8 leaves less room, since it is widened to float32.
    """
    k = weight.shape[1]
    block_k, even_k = column_tile(k)
    tile = max(1, rows * block_k * weight.element_size() // (32 * row.num_warps))
    fitting = max(1, (144 if weight.dtype == torch.int8 else 480) // (tile * matrices))
    return {
        "K": k,
        "BLOCK_K": block_k,
        "PREFETCH": min(row.tile["PREFETCH"], triton.cdiv(k, block_k), fitting),
        "EVEN_K": even_k,
        "EVEN_N": n % rows == 0,
    }


def variant(kernel: str, weight: torch.Tensor) -> str:
    """Return the name of the settings for ``weight``'s dtype."""
    if weight.dtype == torch.int8:
        return f"{kernel}/int8"
    return f"{kernel}/float32" if weight.dtype == torch.float32 else kernel
