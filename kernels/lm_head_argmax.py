"""Final norm, language-model head and greedy choice; then the step to the next token.

    logits = round(W rms_norm(x));  token = the lowest index of the largest logit

Logits are rounded to the activation dtype before they are compared, since that is what Transformers takes its argmax of
(ties are common in bfloat16). Each program keeps the best of its ROWS; :func:`advance` takes the best of those, fetches
the token's embedding for the next step and moves the positions on. Two launches rather than one with a counter across
programs: the result then needs no memory ordering inside a kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import launch, next_power_of_2, settings
from .matvec import inverse_rms, normed_matvec, prefetch_weights, scaled_rows, tile_constants, variant, wait_for_inputs


@triton.jit
def lm_head_argmax_kernel(
    X, G, W, S, Logits, Best, BestIndex, eps, N: tl.constexpr, K: tl.constexpr, K_PADDED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PREFETCH: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr,
    INT8: tl.constexpr, STORE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program (b, block): ROWS words of the vocabulary for batch row b."""
    b = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    row = block * ROWS + tl.arange(0, ROWS)
    keep_rows = row < N
    tile = W + row[:, None].to(tl.int64) * K + tl.arange(0, BLOCK_K)[None, :]
    tiles = prefetch_weights(tile, keep_rows, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    wait_for_inputs(PDL)
    x = X + b * K
    rstd = inverse_rms(x, eps, K, K_PADDED)
    y = normed_matvec(x, G, rstd, tile, tiles, keep_rows, ROWS, K, BLOCK_K, PREFETCH, EVEN_K, EVEN_N)
    y = scaled_rows(y, S, row, keep_rows, INT8).to(X.dtype.element_ty)
    if STORE:
        tl.store(Logits + b * N + row, y, mask=keep_rows)
    score = tl.where(keep_rows, y.to(tl.float32), float("-inf"))
    best = tl.max(score, 0)
    at = b * tl.num_programs(1) + block
    tl.store(Best + at, best)
    tl.store(BestIndex + at, tl.min(tl.where(score == best, row, N), 0))


@triton.jit
def advance_kernel(
    Best, BestIndex, E, Next, X, Tokens, Position, Step, steps, vocabulary,
    BLOCKS: tl.constexpr, BLOCKS_PADDED: tl.constexpr, K: tl.constexpr, K_PADDED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program b: choose the token of batch row b and prepare its next step."""
    b = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCKS_PADDED)
    wait_for_inputs(PDL)
    best = tl.load(Best + b * BLOCKS + i, mask=i < BLOCKS, other=float("-inf"))
    index = tl.load(BestIndex + b * BLOCKS + i, mask=i < BLOCKS, other=2147483647)
    token = tl.min(tl.where(best == tl.max(best, 0), index, 2147483647), 0).to(tl.int64)
    token = tl.minimum(token, vocabulary - 1)  # all logits NaN: some token, but never an address outside the table
    cols = tl.arange(0, K_PADDED)
    tl.store(X + b * K + cols, tl.load(E + token * K + cols, mask=cols < K, other=0.0), mask=cols < K)
    tl.store(Next + b, token)
    step = tl.load(Step + b)
    tl.store(Tokens + b * steps + step, token, mask=step < steps)
    tl.store(Step + b, step + 1)
    tl.store(Position + b, tl.load(Position + b) + 1)


def head_blocks(weight: torch.Tensor) -> int:
    """Return how many partial results per batch row :func:`lm_head_argmax` writes for ``weight``."""
    return int(triton.cdiv(weight.shape[0], settings(variant("lm_head_argmax", weight), weight.device).tile["ROWS"]))


def lm_head_argmax(
    x: torch.Tensor,
    norm_weight: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    logits: torch.Tensor | None,
    best: torch.Tensor,
    best_index: torch.Tensor,
    eps: float,
    pdl: bool = False,
) -> None:
    """Write the best logit and its index per block of the vocabulary, and the logits where a buffer is given.

    Args:
        x: (batch, hidden), contiguous.
        norm_weight: (hidden,), of the final norm.
        weight: (vocabulary, hidden).
        scale: (vocabulary,) float32, for int8 weights.
        logits: output, (batch, vocabulary) in the dtype of ``x``, or None.
        best: output, (batch, blocks) float32 with ``blocks = head_blocks(weight)``.
        best_index: output, (batch, blocks) int32; among equal logits the lowest.
        eps: of the norm.
        pdl: overlap with the kernels before and after.
    """
    batch, hidden = x.shape
    n = weight.shape[0]
    row = settings(variant("lm_head_argmax", weight), x.device)
    rows = row.tile["ROWS"]
    launch(
        lm_head_argmax_kernel, (batch, triton.cdiv(n, rows)), row,
        x, norm_weight, weight, norm_weight if scale is None else scale, x if logits is None else logits,
        best, best_index, eps,
        N=n, K_PADDED=next_power_of_2(hidden), INT8=scale is not None, STORE=logits is not None, PDL=pdl, pdl=pdl,
        **tile_constants(row, rows, n, weight),
    )  # fmt: skip


def advance(
    best: torch.Tensor,
    best_index: torch.Tensor,
    embedding: torch.Tensor,
    token: torch.Tensor,
    x: torch.Tensor,
    tokens: torch.Tensor,
    position: torch.Tensor,
    step: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Choose each row's token and write all that the next step starts from.

    Args:
        best: (batch, blocks) float32; ``best_index`` (batch, blocks) int32. A sampled token is one block.
        best_index: see ``best``.
        embedding: (vocabulary, hidden).
        token: output, (batch,) int64.
        x: output, (batch, hidden): the embedding of the token.
        tokens: output, (batch, steps) int64, written at column ``step``; nothing is written past the last.
        position: (batch,) int32, incremented.
        step: (batch,) int32, incremented.
        pdl: overlap with the kernels before and after.
    """
    batch, blocks = best.shape
    hidden = x.shape[1]
    launch(
        advance_kernel, (batch,), settings("advance", x.device),
        best, best_index, embedding, token, x, tokens, position, step, tokens.shape[1],
        embedding.shape[0],
        BLOCKS=blocks, BLOCKS_PADDED=next_power_of_2(blocks), K=hidden, K_PADDED=next_power_of_2(hidden),
        PDL=pdl, pdl=pdl,
    )  # fmt: skip
