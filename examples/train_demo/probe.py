"""Probes: accuracy on held-out scenes while training runs, and its plot."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from .batches import Batch, Batcher
from .network import read, see
from .packing import IGNORED
from .scenes import FORMATS

SEED = 1_000_000


class Probe:
    """Some held-out scenes and clips, drawn once."""

    def __init__(self, batcher: Batcher, scenes: int = 40, clips: int = 16) -> None:
        rng = random.Random(SEED)
        self.batches = [batcher.scenes(rng, scenes, grid, 0.0, {}) for grid in FORMATS]
        self.batches += [batcher.clips(rng, clips, frames, {}) for frames in (3, 4, 5, 8)]

    def accuracy(self, model: Any) -> dict[str, float]:
        """Return the percentage of answers, by kind, whose every token is the likeliest one."""
        right, asked = Counter[str](), Counter[str]()
        model.eval()
        with torch.no_grad():
            for batch in self.batches:
                self._count(model, batch, right, asked)
        model.train()
        return {kind: 100 * right[kind] / asked[kind] for kind in sorted(asked)}

    @staticmethod
    def _count(model: Any, batch: Batch, right: Counter[str], asked: Counter[str]) -> None:
        packed = batch.packed
        likeliest = model.lm_head(read(model, see(model, batch.pixels), packed)).argmax(-1)
        wrong = (likeliest != packed.labels) & (packed.labels != IGNORED)
        for i, questions in enumerate(batch.questions):
            for block, question in enumerate(questions, 1):
                asked[question.kind] += 1
                right[question.kind] += not bool(wrong[i][packed.blocks[i] == block].any())


def plot(history: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and accuracy against minutes of training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    minutes = [entry["minutes"] for entry in history]
    left.plot(minutes, [entry["loss"] for entry in history], label="answers")
    left.plot(minutes, [entry["dense"] for entry in history], label="dense labels")
    for kind in history[-1]["accuracy"]:
        right.plot(minutes, [entry["accuracy"].get(kind, float("nan")) for entry in history], label=kind)
    left.set(xlabel="minutes", ylabel="loss", yscale="log")
    right.set(xlabel="minutes", ylabel="exact answers, %", ylim=(0, 101))
    left.legend()
    right.legend(fontsize=7, ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
