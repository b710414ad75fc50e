"""Train the demo checkpoint: ``python -m examples.train_demo.train --out build/demo --minutes 75``.

Each of two processes draws its own half of every batch, so that two slow cores are used without threads that wait
for each other. Every two minutes the state (weights, both optimisers, step, time spent) goes to ``--out``, and the
accuracy on held-out scenes is printed and plotted. Started again with the same folder, training goes on from there, and
the other options may have changed. What a step draws depends on the seed, the step and the process alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from faster_smolvlm import SmolVLMConfig, SmolVLMForConditionalGeneration
from tokenizers import Tokenizer
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F

from .batches import Batch, Batcher, load_processors
from .dense import WIDTH, dense_loss
from .muon import Muon
from .network import TEXT, configuration, initialise, read, see
from .packing import IGNORED, Packer
from .probe import Probe, plot
from .tokens import train_tokenizer

GRIDS = (((2, 2), 0.6, 12), ((1, 2), 0.2, 18), ((2, 1), 0.2, 18))  # tiles, share of the picture steps, scenes
# The kinds that are learned last count more: they need a shape found by its name and then something read off it.
WEIGHTS = '{"colour": 2, "relation": 3, "nothing": 2, "yes/no": 2, "motion": 3, "describe": 2, "count": 0.5}'
CLIP_FRAMES = ((2, 3, 4, 4, 5, 6, 8), 54)  # frames of a clip, frames in a batch


def build_model(tokenizer: Tokenizer) -> SmolVLMForConditionalGeneration:
    """Return the untrained model."""
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**configuration(tokenizer.token_to_id)))
    initialise(model)
    return model


class Trainer:
    """One process of the training run; process 0 speaks, saves and probes."""

    def __init__(self, options: argparse.Namespace, rank: int) -> None:
        self.options, self.rank, self.out = options, rank, Path(options.out)
        tokenizer = Tokenizer.from_file(str(self.out / "tokenizer.json"))
        torch.manual_seed(options.seed)
        self.model = build_model(tokenizer).train()
        self.head = nn.Linear(TEXT, WIDTH)
        named = dict(self.model.named_parameters())
        matrices = [w for name, w in named.items() if w.ndim == 2 and "embed" not in name and "lm_head" not in name]
        chosen = {id(w) for w in matrices}
        others = [w for w in named.values() if id(w) not in chosen] + list(self.head.parameters())
        self.weights = [*matrices, *others]
        muon = Muon(matrices, lr=options.rate, weight_decay=0.05)
        self.optimisers = [muon, torch.optim.AdamW(others, lr=options.rate, betas=(0.9, 0.95), weight_decay=0.0)]
        self.batcher = Batcher(Packer(tokenizer), *load_processors())
        self.factors: dict[str, float] = json.loads(options.weights)
        self.step, self.spent, self.history = 0, 0.0, list[dict[str, Any]]()
        if (self.out / "state.pt").exists():
            self.restore(torch.load(self.out / "state.pt", weights_only=True))

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.spent, self.history = state["step"], state["spent"], state["history"]

    def save(self) -> None:
        """Write the state, whole or not at all."""
        optimisers = [optimiser.state_dict() for optimiser in self.optimisers]
        learned = {"model": self.model.state_dict(), "head": self.head.state_dict(), "optimisers": optimisers}
        state = learned | {"step": self.step, "spent": self.spent, "history": self.history}
        torch.save(state, self.out / "state.tmp")
        os.replace(self.out / "state.tmp", self.out / "state.pt")

    def draw(self, progress: float) -> Batch:
        """Draw this process's share of the step; all processes choose alike between pictures and clips."""
        choice = random.Random(f"{self.options.seed} {self.step}")
        rng = random.Random(f"{self.options.seed} {self.step} {self.rank}")
        if choice.random() < self.options.clips and progress > 0.03:
            frames = choice.choice(CLIP_FRAMES[0])
            return self.batcher.clips(rng, CLIP_FRAMES[1] // frames, frames, self.factors)
        grid, _, count = choice.choices(GRIDS, [share for _, share, _ in GRIDS])[0]
        easy = max(0.0, 0.85 * (1 - progress / self.options.curriculum))
        return self.batcher.scenes(rng, count, grid, easy, self.factors)

    def loss(self, batch: Batch, progress: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss to descend, the loss of the answers and the dense loss; at first, only the eyes learn."""
        features = see(self.model, batch.pixels)
        dense = dense_loss(self.head, features, batch.dense)
        if progress < self.options.eyes:
            return dense, torch.zeros(()), dense
        chosen = batch.packed.labels != IGNORED
        logits = self.model.lm_head(read(self.model, features, batch.packed)[chosen])
        each = F.cross_entropy(logits.float(), batch.packed.labels[chosen], reduction="none")
        answers = (each * batch.packed.weights[chosen]).sum() / batch.packed.weights[chosen].sum()
        return answers + (0.5 - 0.4 * progress) * dense, answers, dense

    def share(self, numbers: list[float]) -> list[float]:
        """Average the gradients and some numbers over the processes."""
        live = [w for w in self.weights if w.grad is not None]
        flat = torch.cat([*(w.grad.reshape(-1) for w in live if w.grad is not None), torch.tensor(numbers)])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        start = 0
        for weight in live:
            weight.grad = flat[start : start + weight.numel()].view_as(weight)
            start += weight.numel()
        averaged: list[float] = flat[-len(numbers) :].tolist()
        return averaged

    def run(self) -> None:
        """Train until the minutes are spent."""
        options, total = self.options, 60 * self.options.minutes
        probe = Probe(self.batcher) if self.rank == 0 else None
        since, begun, quiet, smooth = time.monotonic(), self.spent, 0.0, [math.nan, math.nan]
        said = saved = self.spent
        while self.spent < total:
            progress = self.spent / total
            loss, answers, dense = self.loss(self.draw(progress), progress)
            loss.backward()  # type: ignore[no-untyped-call]
            now = begun + time.monotonic() - since - quiet
            clock = now * dist.get_world_size() if self.rank == 0 else 0.0
            *losses, self.spent = self.share([answers.item(), dense.item(), clock])
            self.descend(progress)
            self.step += 1
            smooth = [
                new if math.isnan(old) else 0.97 * old + 0.03 * new for old, new in zip(smooth, losses, strict=True)
            ]
            if probe is None:
                continue
            if self.spent - said > 10:
                said = self.spent
                print(
                    f"{said / 60:5.1f} min  step {self.step}  answers {smooth[0]:.3f}  dense {smooth[1]:.3f}",
                    flush=True,
                )
            if self.spent - saved > options.every or self.spent >= total:
                start, saved = time.monotonic(), self.spent
                entry = {"minutes": saved / 60, "step": self.step, "loss": smooth[0], "dense": smooth[1]}
                self.history.append(entry | {"accuracy": probe.accuracy(self.model)})
                self.save()
                plot(self.history, self.out / "training.png")
                print(" ".join(f"{k} {v:.0f}" for k, v in self.history[-1]["accuracy"].items()), flush=True)
                quiet += time.monotonic() - start

    def descend(self, progress: float) -> None:
        """Make one optimiser step at the rate of this moment: a short rise, then half a cosine."""
        rate = (
            self.options.rate
            * min(1, (self.step + 1) / 100)
            * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1, progress))))
        )
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimiser, factor in zip(self.optimisers, (1.0, 0.5), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad()


def work(rank: int, options: argparse.Namespace) -> None:
    """Be one of the processes."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{options.port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=options.processes)
    Trainer(options, rank).run()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the state, the tokenizer and the plot")
    parser.add_argument("--minutes", type=float, default=75.0, help="minutes of training in all")
    parser.add_argument("--processes", type=int, default=2, help="one for each core")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest step size")
    parser.add_argument("--clips", type=float, default=0.2, help="part of the steps that draw clips")
    parser.add_argument("--curriculum", type=float, default=0.2, help="part of the time with more single shapes")
    parser.add_argument(
        "--eyes", type=float, default=0.06, help="part of the time in which only the vision tower learns"
    )
    parser.add_argument("--weights", default=WEIGHTS, help="weight by kind of question, as JSON")
    parser.add_argument("--every", type=float, default=120.0, help="seconds between two probes and saved states")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=29555, help="port of the processes on this machine")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer.json").exists():
        train_tokenizer().save(str(out / "tokenizer.json"))
    spawn(work, (options,), options.processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
