"""The native engine beside Transformers, OpenVINO and llama.cpp on a CPU, alternating in one run.

    python -m benches.bench_engine --config DIR --cache DIR [--work vision --work decode …] [--threads 2] [--rounds 7]

DIR of `--config` holds a real configuration with its tokenizer; all engines get the same random weights, converted once
into the folder of `--cache`. `--work check-…` says how close each engine is to Transformers in float32. One that is not
installed is left out, by name; BENCHMARKS.md says how to install them. "Others" is the share of the cores that other
processes took while a side ran: where it is more than a few percent, measure again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benches import timing
from benches.anchors import checkpoint
from benches.anchors.cost import Cost
from benches.anchors.load import Load
from benches.anchors.side import Settings
from benches.anchors.worker import Engine, Worker

OURS = Engine(
    "native", "native_side", "Native", ("faster_smolvlm",), ("float32", "bfloat16", "int8"),
    ("vision", "prefill", "decode", "photo"),
)  # fmt: skip
OTHERS = (
    Engine(
        "Transformers", "transformers_side", "Transformers", ("transformers", "torch"), ("float32", "bfloat16"),
        ("vision", "prefill", "decode", "photo"),
    ),
    Engine(
        "OpenVINO", "openvino_side", "OpenVino", ("openvino", "openvino_genai"), ("bfloat16 hint",),
        ("vision", "prefill", "decode"),
    ),
    Engine(
        "OpenVINO", "openvino_side", "OpenVino", ("openvino", "openvino_genai"), ("int8 weights",),
        ("prefill", "decode"),
    ),
    Engine(
        "llama.cpp", "llama_cpp_side", "LlamaCpp", ("llama_cpp",), ("BF16", "Q8_0"),
        ("vision", "prefill", "decode", "photo"),
    ),
    Engine("llama.cpp", "llama_cpp_side", "LlamaCpp", ("llama_cpp",), ("Q4_0",), ("prefill", "decode")),
)  # fmt: skip
REFERENCE = "Transformers float32"

PREFILL = 512
NEW_TOKENS = 32
BATCH = 8
PHOTO = (1024, 768)
QUESTION = "What is in the picture?"
CHECKS = {"check-vision": "vision", "check-prefill": "prefill", "check-photo": "photo"}
WORKS = (*CHECKS, "vision", "prefill", "decode-empty", "decode-1000", "batch", "photo", "neighbour")
CONTEXTS = {"decode-empty": 1, "decode-1000": 1000}
LONG = 4.0
"""A first run of more seconds is a round, a shorter one is warming up."""

TARGETS = {
    ("vision", "bfloat16"): {"OpenVINO bfloat16 hint": 1.05, "Transformers bfloat16": 1.6, "llama.cpp BF16": 1.9},
    ("vision", "int8"): {"OpenVINO bfloat16 hint": 1.65, "Transformers bfloat16": 2.5},
    ("prefill", "bfloat16"): {"OpenVINO bfloat16 hint": 1.05},
    ("prefill", "int8"): {"OpenVINO bfloat16 hint": 1.7},
    ("decode-empty", "bfloat16"): {"llama.cpp BF16": 1.15, "Transformers bfloat16": 3.7},
    ("decode-1000", "bfloat16"): {"llama.cpp BF16": 1.45, "Transformers bfloat16": 5.5},
    ("decode-empty", "int8"): {"llama.cpp Q8_0": 1.6},
    ("decode-1000", "int8"): {"llama.cpp Q8_0": 2.3},
    ("photo", "bfloat16"): {"llama.cpp BF16": 2.3},
    ("photo", "int8"): {"llama.cpp BF16": 3.5},
}
"""How many times as fast as another engine ours has to be, by work and our precision."""
BATCH_TARGET, NEIGHBOUR_TARGET = 4.0, 0.9


@dataclass(frozen=True)
class Measured(timing.Timing):
    """A timing with the share of the cores that other processes took meanwhile, and the number of rounds."""

    others: float
    rounds: int


def measure(runs: Mapping[str, tuple[Worker, str]], rounds: int, patience: float) -> dict[str, Measured]:
    """Time the work of every side once a round, in turn; one that takes long only as often as `patience` allows."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    others: dict[str, list[float]] = {name: [] for name in runs}
    wanted = dict.fromkeys(runs, rounds)
    for turn in range(rounds + 1):
        for name, (worker, work) in runs.items():
            if len(seconds[name]) >= wanted[name]:
                continue
            worker.settle()
            own = (worker.process, os.getpid())
            before = Load.now(own)
            taken = worker.run(work)
            after = Load.now(own)
            if turn == 0:
                wanted[name] = min(rounds, max(1, int(patience / taken)))
            if turn > 0 or taken > LONG:
                seconds[name].append(taken)
                others[name].append(before.others_until(after) if before and after else float("nan"))
    return {
        name: Measured(statistics.median(each), min(each), max(each), statistics.median(others[name]), len(each))
        for name, each in seconds.items()
    }


class Bench:
    """The workers in use, and what the works need."""

    def __init__(self, settings: Settings, rounds: int, patience: float, only: Sequence[str]) -> None:
        self.settings = settings
        self.rounds = rounds
        self.patience = patience
        self.only = only
        self.cost = Cost.of(settings.checkpoint)
        self.frame = np.random.default_rng(0).integers(0, 256, (self.cost.image_size,) * 2 + (3,)).astype(np.uint8)

    @contextmanager
    def workers(self, work: str, engines: Sequence[Engine]) -> Iterator[dict[str, Worker]]:
        """Start what is installed of the engines that can do a work."""
        started: dict[str, Worker] = {}
        for engine in engines:
            names = [f"{engine.name} {precision}" for precision in engine.precisions]
            if work not in engine.works or (self.only and not set(names) & set(self.only)):
                continue
            if absent := engine.missing():
                print(f"{', '.join(names)}: left out, {', '.join(absent)} not installed\n")
                continue
            for name, precision in zip(names, engine.precisions, strict=True):
                if not self.only or name in self.only:
                    started[name] = Worker(engine, precision, self.settings)
        try:
            yield started
        finally:
            for worker in started.values():
                worker.close()

    def compare(self, work: str, method: str, *arguments: Any) -> None:
        """Time one work of all engines; print what each took and how many times as long as ours."""
        with self.workers(method, (OURS, *OTHERS)) as workers:
            for name, worker in list(workers.items()):
                try:
                    worker.prepare(work, method, *arguments)
                except RuntimeError as error:
                    print(f"{name}: left out, {str(error).strip().splitlines()[-1]}\n")
                    workers.pop(name).close()
            times = measure({name: (worker, work) for name, worker in workers.items()}, self.rounds, self.patience)
            ours = {name: times[name] for name in times if name.startswith(OURS.name)}
            if ours:
                self.limits(next(iter(workers.values())))
            rows = []
            for name, worker in workers.items():
                share = ""
                if name in ours:
                    share = self.share(work, times[name].median, worker)
                cells = [
                    f"{times[name].median / each.median:.2f}×{self.target(work, mine, name)}"
                    for mine, each in ours.items()
                ]
                what = self.rate(work, times[name].median)
                busy = f"{times[name].others:.0%}"
                rows.append(
                    [name, worker.call("ran"), str(times[name]), str(times[name].rounds), busy, what, share, *cells]
                )
            head = [
                "engine",
                "ran",
                "median (range)",
                "rounds",
                "others",
                "rate",
                "of the limit",
                *(f"/ {name}" for name in ours),
            ]
            print(f"{work}\n\n{timing.table(head, rows)}\n")
            print("; ".join(sorted({worker.call("versions") for worker in workers.values()})), end="\n\n")

    def limits(self, worker: Worker) -> None:
        """Measure the machine in a worker of ours."""
        self.read, self.peak, bfloat16 = worker.call("limits")
        self.bfloat16_peak = bfloat16 or self.peak
        print(f"{timing.machine()}, {self.settings.threads} threads; measured just now: ", end="")
        print(f"{self.read / 1e9:.1f} GB/s read, {self.peak / 1e9:.0f} GFLOP/s float32", end="")
        print(f", {bfloat16 / 1e9:.0f} bfloat16\n" if bfloat16 else "\n")

    def target(self, work: str, mine: str, other: str) -> str:
        """Return the wanted ratio, in brackets."""
        wanted = TARGETS.get((work, mine.removeprefix(f"{OURS.name} ")), {}).get(other)
        return f" (≥ {wanted}×)" if wanted else ""

    def rate(self, work: str, seconds: float) -> str:
        """Return the speed in the unit of a work."""
        if work in CONTEXTS:
            return f"{NEW_TOKENS / seconds:.1f} tok/s"
        if work == "prefill":
            return f"{PREFILL / seconds:.0f} tok/s"
        return f"{1 / seconds:.2f} /s"

    def share(self, work: str, seconds: float, worker: Worker) -> str:
        """Return how near a work of ours comes to what the machine can: peak of its arithmetic, or bandwidth."""
        if work in CONTEXTS:
            return f"{NEW_TOKENS * worker.call('text_bytes') / seconds / self.read:.0%} of the bandwidth"
        flop = {"vision": self.cost.vision(), "prefill": self.cost.prefill(PREFILL)}.get(work)
        peak = self.peak if worker.name.endswith("float32") else self.bfloat16_peak
        return f"{flop / seconds / peak:.0%} of the peak" if flop else ""

    def batch(self) -> None:
        """Print how much more tokens a batch makes than one sequence."""
        with self.workers("decode", (OURS,)) as workers:
            runs: dict[str, tuple[Worker, str]] = {}
            for name, worker in workers.items():
                for size in (1, BATCH):
                    worker.prepare(str(size), "decode", 1, size)
                    runs[f"{name}, batch {size}"] = worker, str(size)
            times = measure(runs, self.rounds, self.patience)
            self.limits(next(iter(workers.values())))
            rows = []
            for name in workers:
                one, many = (times[f"{name}, batch {size}"].median for size in (1, BATCH))
                rates = [f"{NEW_TOKENS / one:.1f} tok/s", f"{BATCH * NEW_TOKENS / many:.1f} tok/s"]
                busy = f"{times[f'{name}, batch {BATCH}'].others:.0%}"
                rows.append([name, *rates, f"{BATCH * one / many:.2f}× (≥ {BATCH_TARGET}×)", busy])
            print(f"{timing.table(['engine', 'batch 1', f'batch {BATCH}', 'ratio', 'others'], rows)}\n")

    def neighbour(self) -> None:
        """Print what a busy process on one core leaves of decoding with all threads and with one."""
        counts = (1, self.settings.threads)
        workers = {
            (precision, threads): Worker(OURS, precision, replace(self.settings, threads=threads))
            for precision in OURS.precisions
            for threads in counts
            if not self.only or f"{OURS.name} {precision}" in self.only
        }
        for worker in workers.values():
            worker.prepare("decode", "decode", 1, 1)
        runs = {f"{precision} {threads}": (worker, "decode") for (precision, threads), worker in workers.items()}
        alone = measure(runs, self.rounds, self.patience)
        busy = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
        busy.start()
        try:
            beside = measure(runs, self.rounds, self.patience)
        finally:
            busy.kill()
        self.limits(next(iter(workers.values())))
        rows = []
        for precision in dict.fromkeys(precision for precision, _ in workers):
            cells = []
            for times in (alone, beside):
                one, all_ = (times[f"{precision} {threads}"].median for threads in counts)
                cells += [f"{NEW_TOKENS / one:.1f}", f"{NEW_TOKENS / all_:.1f}", f"{one / all_:.2f}×"]
            rows.append([f"{OURS.name} {precision}", *cells[:-1], f"{cells[-1]} (≥ {NEIGHBOUR_TARGET}×)"])
        head = ["tok/s", "1 thread", f"{counts[1]} threads", "ratio", "1 thread, neighbour", f"{counts[1]}, neighbour"]
        print(f"{timing.table([*head, 'ratio'], rows)}\n")
        for worker in workers.values():
            worker.close()

    def check(self, work: str) -> None:
        """Print the cosines of each engine's results of one work to those of Transformers in float32."""
        sides = [(engine, precision) for engine in (*OTHERS, OURS) for precision in engine.precisions]
        sides.sort(key=lambda side: f"{side[0].name} {side[1]}" != REFERENCE)
        expected: Any = None
        rows = []
        for engine, precision in sides:
            name = f"{engine.name} {precision}"
            unwanted = bool(self.only) and name not in self.only and name != REFERENCE
            if work not in engine.works or unwanted:
                continue
            if absent := engine.missing():
                print(f"{name}: left out, {', '.join(absent)} not installed\n")
                continue
            worker = Worker(engine, precision, self.settings)
            try:
                found, tokens = self.result(worker, work)
            except RuntimeError as error:
                print(f"{name}: left out, {str(error).strip().splitlines()[-1]}\n")
                continue
            finally:
                worker.close()
            if name == REFERENCE:
                expected = found
            if expected is None:
                raise SystemExit(f"There is nothing to check against: {REFERENCE} is left out.")
            norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
            cosines = (found * expected).sum(-1) / norms
            same = "" if work == "vision" else ("same" if found.argmax() == expected.argmax() else "other")
            rows.append([name, f"{cosines.min():.6f}", same, tokens])
        head = [work, f"least cosine to {REFERENCE}", "first token", "prompt tokens"]
        print(f"{timing.table(head, rows)}\n", flush=True)

    def result(self, worker: Worker, work: str) -> tuple[Any, str]:
        """Return features [tokens, hidden_size] or logits [1, vocabulary], and the tokens of the prompt."""
        if work == "vision":
            return worker.call("features", self.frame), ""
        if work == "prefill":
            return worker.call("logits", PREFILL)[None], str(PREFILL)
        logits, tokens = worker.call("photo_logits")
        return logits[None], str(tokens)

    def run(self, work: str) -> None:
        """Do one of `WORKS`."""
        if work == "vision":
            self.compare(work, "vision", self.frame)
        elif work == "prefill":
            self.compare(work, "prefill", PREFILL)
        elif work in CONTEXTS:
            self.compare(work, "decode", CONTEXTS[work], 1)
        elif work == "photo":
            self.compare(work, "photo")
        elif work in CHECKS:
            self.check(CHECKS[work])
        else:
            {"batch": self.batch, "neighbour": self.neighbour}[work]()


def photograph(path: Path) -> Path:
    """Write a picture of the size of a photograph, with slow and quick changes, once."""
    if not path.exists():
        random = np.random.default_rng(0)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3)).astype(np.uint8)).resize(
            PHOTO, Image.Resampling.BICUBIC
        )
        noise = random.normal(0, 8, (PHOTO[1], PHOTO[0], 3))
        Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path


def _spin() -> None:
    while True:
        pass


def _checkpoint(config: Path, cache: Path) -> Path:
    """Make the weights in a process that ends afterwards: this one stays without torch."""
    process = multiprocessing.get_context("spawn").Process(target=checkpoint.hugging_face, args=(config, cache))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit("The weights could not be made.")
    return cache / checkpoint.HUGGING_FACE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="folder of a configuration and its tokenizer")
    parser.add_argument("--cache", type=Path, help="folder for the weights in all formats; default: a temporary one")
    parser.add_argument("--work", action="append", choices=WORKS, help="what to do; may repeat; default: everything")
    parser.add_argument("--only", action="append", default=[], help="a side by name, as in the tables; may repeat")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--patience", type=float, default=40, help="seconds for all rounds of one side of one work")
    parser.add_argument("--export-python", type=Path, help="Python of an environment with optimum-intel")
    parser.add_argument("--llama-source", type=Path, help="folder of llama.cpp's convert_hf_to_gguf.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        cache = options.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        settings = Settings(
            checkpoint=_checkpoint(options.config, cache),
            cache=cache,
            threads=options.threads,
            photograph=photograph(cache / "photograph.jpg"),
            question=QUESTION,
            new_tokens=NEW_TOKENS,
            export_python=options.export_python,
            llama_source=options.llama_source,
        )
        bench = Bench(settings, options.rounds, options.patience, options.only)
        for work in options.work or WORKS:
            bench.run(work)


if __name__ == "__main__":
    main()
