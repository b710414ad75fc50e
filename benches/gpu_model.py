"""What each kernel must move and compute, from the sizes of the model alone, and the time that takes at a card's
limits.

    python -m benches.gpu_model        prints the table of predictions for BENCHMARKS.md

No GPU is involved: the numbers are predictions until `make bench-gpu` has run on one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benches.timing import table

LAUNCH_GAP = 1.3e-6
"""Seconds between two dependent kernels of a CUDA graph on an H100, as published by Hazy Research (2025); the graph
estimate adds it to every launch."""


@dataclass(frozen=True)
class Card:
    """Peak rates a second: bytes of memory, dense bf16 operations, exponentials (16 a clock and multiprocessor)."""

    bandwidth: float
    flops: float
    exponentials: float


CARDS = {
    "H100 SXM": Card(3.35e12, 989e12, 132 * 16 * 1.755e9),
    "A100 80GB": Card(2.04e12, 312e12, 108 * 16 * 1.41e9),
    "RTX 4090": Card(1.008e12, 165e12, 128 * 16 * 2.52e9),
}


@dataclass(frozen=True)
class Text:
    """The text stack; `head_dim` is 64 throughout the family."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    layers: int
    vocabulary: int = 49280
    head_dim: int = 64


@dataclass(frozen=True)
class Vision:
    """The vision tower and the connector for `tiles` pictures."""

    width: int
    heads: int
    tokens: int
    layers: int
    shuffle: int
    tiles: int = 17


TEXT = {
    "256M": Text(576, 1536, 9, 3, 30),
    "500M": Text(960, 2560, 15, 5, 32),
    "2.2B": Text(2048, 8192, 32, 32, 24),
}
VISION = {
    "256M": Vision(768, 12, 1024, 12, 4),
    "500M": Vision(768, 12, 1024, 12, 4),
    "2.2B": Vision(1152, 16, 729, 27, 3),
}


@dataclass(frozen=True)
class Work:
    """One kernel: how often it runs, and the bytes, operations and exponentials of one run."""

    kernel: str
    runs: int
    bytes: float
    flops: float
    exponentials: float = 0.0

    def seconds(self, card: Card) -> float:
        """Time of one run at the limit that binds."""
        return max(self.bytes / card.bandwidth, self.flops / card.flops, self.exponentials / card.exponentials)


def decode(text: Text, context: int, weight_bytes: int = 2) -> Iterator[Work]:
    """Yield the kernels of one token at batch 1 with `context` tokens in the cache."""
    q, kv = text.heads * text.head_dim, text.kv_heads * text.head_dim

    def product(kernel: str, runs: int, rows: int, columns: int) -> Work:
        return Work(kernel, runs, rows * columns * weight_bytes + 2 * (rows + columns), 2.0 * rows * columns)

    yield product("qkv_decode", text.layers, q + 2 * kv, text.hidden)
    yield Work("decode_attention", text.layers, 2.0 * context * kv * 2, 4.0 * context * q)
    yield product("out_decode", text.layers, text.hidden, q)
    yield product("mlp_decode", text.layers, 2 * text.intermediate, text.hidden)
    yield product("down_decode", text.layers, text.hidden, text.intermediate)
    yield product("lm_head_argmax", 1, text.vocabulary, text.hidden)
    yield Work("advance", 1, 2.0 * text.hidden + 8.0 * text.vocabulary / 64, 0.0)


def vision(tower: Vision, hidden: int) -> Iterator[Work]:
    """Yield this package's kernels of the vision tower and the connector; the other products are cuBLAS."""
    rows = tower.tiles * tower.tokens
    head_dim = tower.width // tower.heads
    scores = float(tower.tiles * tower.tokens**2 * tower.heads)
    yield Work("attention", tower.layers, 4 * rows * tower.width * 2, 4 * scores * head_dim, scores)
    yield Work("layer_norm + residual", tower.layers, 4 * rows * tower.width * 2, 8.0 * rows * tower.width)
    out_rows, k = rows / tower.shuffle**2, tower.width * tower.shuffle**2
    yield Work("pixel_shuffle_project", 1, 2 * (out_rows * (k + hidden) + k * hidden), 2.0 * out_rows * k * hidden)


def prefill(text: Text, tokens: int) -> Iterator[Work]:
    """Yield this package's kernels of a prompt."""
    width, kv = text.heads * text.head_dim, text.kv_heads * text.head_dim
    yield Work("rms_norm + residual", 2 * text.layers, 4.0 * tokens * text.hidden * 2, 4.0 * tokens * text.hidden)
    yield Work("rotary", text.layers, 2.0 * tokens * (width + kv) * 2, 3.0 * tokens * (width + kv))
    scores = tokens**2 * text.heads / 2
    moved = 2.0 * tokens * (2 * width + 2 * kv)
    yield Work("causal attention", text.layers, moved, 4 * scores * text.head_dim, scores)


def _row(model: str, phase: str, work: Work) -> list[str]:
    cells = [model, phase, work.kernel, str(work.runs), f"{work.bytes / 1e6:.2f}", f"{work.flops / 1e9:.3g}"]
    return [*cells, *(f"{work.seconds(card) * 1e6:.2f}" for card in CARDS.values())]


def _decode_total(model: str, text: Text, context: int, weight_bytes: int) -> list[str]:
    works = list(decode(text, context, weight_bytes))
    launches = sum(work.runs for work in works)
    cells = [model, "bf16" if weight_bytes == 2 else "int8", str(launches)]
    for card in CARDS.values():
        limit = sum(work.runs * work.seconds(card) for work in works)
        cells += [f"{limit * 1e6:.0f}", f"{(limit + launches * LAUNCH_GAP) * 1e6:.0f}"]
    return cells


def report(context: int = 1100) -> str:
    """Return both tables as Markdown."""
    rows = []
    for model, text in TEXT.items():
        tower = VISION[model]
        rows += [_row(model, f"{tower.tiles} tiles", work) for work in vision(tower, text.hidden)]
        rows += [_row(model, f"prompt of {context}", work) for work in prefill(text, context)]
        rows += [_row(model, "one token", work) for work in decode(text, context)]
    limits = [f"{name}, µs" for name in CARDS]
    kernels = table(["model", "phase", "kernel", "runs", "MB a run", "GFLOP a run", *limits], rows)
    heads = [cell for name in CARDS for cell in (f"{name} limit, µs", "predicted, µs")]
    totals = [_decode_total(model, text, context, size) for model, text in TEXT.items() for size in (2, 1)]
    tokens = table(["model", "weights", "launches", *heads], totals)
    return f"""**Prediction, not measurement.** Time of one run at the card's limit (memory, matrix units or
exponentials, whichever binds), bf16, batch 1, {context} tokens of context:

{kernels}

Attention does not reach that limit, since matrix units and exponentials wait for each other: published Triton kernels
give 320 to 350 TFLOP/s on an H100 at head_dim 64 and 1024 tokens, which is 157 to 171 µs for 17 tiles of 256M; this
kernel is predicted to do the same.

One token: the sum of the limits, and with {LAUNCH_GAP * 1e6:.1f} µs between launches of a graph (a published figure for
the H100; without overlap of dependent launches):

{tokens}
"""


if __name__ == "__main__":
    print(report())
