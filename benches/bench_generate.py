"""Time `generate` against Transformers' on this machine: whole calls, and what the loop adds to the model.

python -m benches.bench_generate [--size 256m|500m] [--dtype float32|bfloat16] [--rounds N] [--threads N]; both sides
hold the same random weights. The ratio is the result: above 1 means faster than Transformers.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from faster_smolvlm import SmolVLMForConditionalGeneration

from benches.bench_model import TEXT, config
from benches.timing import alternate, machine, table

NEW_TOKENS = 24

CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "greedy, prompt of 64": (1, 64, {}),
    "greedy, prompt of 1000": (1, 1000, {}),
    "greedy, batch of 8": (8, 64, {}),
    "drawn, top_k and top_p": (1, 64, {"do_sample": True, "top_k": 50, "top_p": 0.9}),
    "repetition penalty": (1, 1000, {"repetition_penalty": 1.1}),
    "4 beams": (1, 64, {"num_beams": 4}),
}


class ForwardClock:
    """Adds up the seconds that a model spends in `forward`."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.seconds = 0.0
        self._start = 0.0
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._start


def call(
    model: Any, clock: ForwardClock, rest: list[float], rows: int, length: int, settings: dict[str, Any]
) -> Callable[[], None]:
    """Return a function that generates; it appends to `rest` the seconds of a step outside the model."""
    ids = torch.randint(10, 49000, (rows, length), generator=torch.Generator().manual_seed(0))
    arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "eos_token_id": -1, **settings}

    def run() -> None:
        clock.seconds = 0.0
        start = time.perf_counter()
        model.generate(**arguments, max_new_tokens=NEW_TOKENS)
        rest.append((time.perf_counter() - start - clock.seconds) / NEW_TOKENS)

    return run


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=TEXT, default="256m")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as directory:
        torch.manual_seed(0)
        transformers.SmolVLMForConditionalGeneration(config(options.size)).save_pretrained(Path(directory))
        sides: dict[str, Any] = {
            "Transformers": transformers.SmolVLMForConditionalGeneration.from_pretrained(
                directory, dtype=options.dtype
            ),
            "faster_smolvlm": SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=options.dtype),
        }
    clocks = {side: ForwardClock(model) for side, model in sides.items()}
    rows = []
    for name, (batch, length, settings) in CASES.items():
        rest: dict[str, list[float]] = {side: [] for side in sides}
        timings = alternate(
            {side: call(model, clocks[side], rest[side], batch, length, settings) for side, model in sides.items()},
            rounds=options.rounds,
            warm_up=1,
        )
        theirs, ours = timings["Transformers"], timings["faster_smolvlm"]
        outside = [f"{statistics.median(rest[side][1:]) * 1e3:.2f} ms" for side in sides]
        rows.append([name, str(theirs), str(ours), f"{theirs.median / ours.median:.2f}", *outside])
    threads = f"{options.threads} threads, {NEW_TOKENS} new tokens"
    print(f"{machine('torch', 'transformers')}; {options.size}, {options.dtype}, {threads}")
    print("The last two columns: a step outside the model's forward, theirs and ours.\n")
    print(table(["case", "Transformers", "faster_smolvlm", "ratio", "their loop", "our loop"], rows))


if __name__ == "__main__":
    main()
