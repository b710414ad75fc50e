"""The native engine beside Transformers on a CPU: vision, prefill and decode, alternating in one run.

    python benches/bench_engine.py --config DIR [--threads 2] [--rounds 7]

DIR holds a real `config.json`; the weights are random. Engines that are not installed are left out, by name.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from faster_smolvlm._rust import machine_limits
from faster_smolvlm.native import NativeSmolVLM
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

PREFILL = 512
CONTEXTS = (8, 1000)
TOKENS = 16
BATCH = 8


class Native:
    """One set of weights of the native engine."""

    def __init__(self, directory: Path, threads: int, **options: str) -> None:
        self.model = NativeSmolVLM.from_pretrained(directory, num_threads=threads, cache_positions=16384, **options)
        self.rust = self.model.rust

    def vision(self, pixels: np.ndarray) -> Callable[[], Any]:
        frames = self.model.frames(pixels)
        return lambda: self.model.encode(frames, reuse=False)

    def _step(self, sequences: list[int], count: int) -> None:
        ids = np.arange(3, 3 + count * len(sequences))
        lengths = [count] * len(sequences)
        self.rust.step_argmax(sequences, lengths, ids, self.model.no_features(), np.full(len(ids), -1), [len(ids) - 1])

    def _fill(self, sequence: int, count: int) -> None:
        self.rust.truncate(sequence, 0)
        for begin in range(0, count, self.rust.STEP_ROWS):
            self._step([sequence], min(self.rust.STEP_ROWS, count - begin))

    def prefill(self, count: int) -> Callable[[], Any]:
        sequence = self.rust.open()
        return lambda: self._fill(sequence, count)

    def decode(self, context: int, batch: int = 1) -> Callable[[], Any]:
        sequences = [self.rust.open() for _ in range(batch)]
        for sequence in sequences:
            self._fill(sequence, context)

        def run() -> None:
            for sequence in sequences:
                self.rust.truncate(sequence, context)
            for _ in range(TOKENS):
                self._step(sequences, 1)

        return run


class Transformers:
    """The model of Transformers with sdpa attention."""

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        self.model = SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=dtype).eval()
        self.dtype = dtype

    def vision(self, pixels: np.ndarray) -> Callable[[], Any]:
        tensor = torch.from_numpy(pixels).to(self.dtype)
        return torch.no_grad()(lambda: self.model.model.get_image_features(tensor))

    def prefill(self, count: int) -> Callable[[], Any]:
        ids = torch.arange(3, 3 + count)[None]
        return torch.no_grad()(lambda: self.model(input_ids=ids, logits_to_keep=1, use_cache=True))

    def decode(self, context: int, batch: int = 1) -> Callable[[], Any]:
        ids = torch.arange(3, 3 + context)[None].repeat(batch, 1)

        @torch.no_grad()
        def run() -> None:
            cache.crop(context)
            for _ in range(TOKENS):
                self.model(input_ids=ids[:, :1], past_key_values=cache, logits_to_keep=1).logits.argmax(-1)

        with torch.no_grad():
            cache = self.model(input_ids=ids, logits_to_keep=1, use_cache=True).past_key_values
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = SmolVLMConfig(**json.loads((options.config / "config.json").read_text()))
    with tempfile.TemporaryDirectory() as folder:
        SmolVLMForConditionalGeneration(config).save_pretrained(folder)
        directory = Path(folder)
        ours = {
            "native float32": Native(directory, options.threads, dtype="float32"),
            "native bfloat16": Native(directory, options.threads, dtype="bfloat16"),
            "native int8": Native(directory, options.threads, quantization="int8"),
        }
        sides: dict[str, Any] = {
            **ours,
            "Transformers float32": Transformers(directory, torch.float32),
            "Transformers bfloat16": Transformers(directory, torch.bfloat16),
        }
        size = config.vision_config.image_size
        pixels = np.random.default_rng(0).uniform(-1, 1, (1, 1, 3, size, size)).astype(np.float32)
        jobs: dict[str, Callable[[Any], Callable[[], Any]]] = {
            "vision, one frame": lambda side: side.vision(pixels),
            f"prefill, {PREFILL} tokens": lambda side: side.prefill(PREFILL),
            **{
                f"decode, {TOKENS} tokens at {context}": lambda side, context=context: side.decode(context)
                for context in CONTEXTS
            },
            f"decode, {TOKENS} tokens of {BATCH} sequences": lambda side: side.decode(8, BATCH),
        }
        print(timing.machine("torch", "transformers"), f"{options.threads} threads, {ours['native int8'].model.isa}")
        read, flops = machine_limits(options.threads)
        print(f"measured limits: {read / 1e9:.1f} GB/s read, {flops / 1e9:.0f} GFLOP/s float32\n")
        rows = []
        for job, make in jobs.items():
            times = timing.alternate({name: make(side) for name, side in sides.items()}, rounds=options.rounds)
            for name, engine in ours.items():
                against = [times[f"Transformers {dtype}"].median for dtype in ("float32", "bfloat16")]
                ratios = [f"{other / times[name].median:.2f}×" for other in against]
                share = TOKENS * engine.rust.text_bytes / times[name].median / read
                rows.append([job, name, str(times[name]), *ratios, f"{share:.0%}" if "at" in job else ""])
        head = ["work", "engine", "time", "Transformers float32 / ours", "bfloat16 / ours", "of the bandwidth"]
        print(timing.table(head, rows))
    for package in ("openvino", "llama_cpp"):
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: left out")


if __name__ == "__main__":
    main()
