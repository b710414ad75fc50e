"""Reads damaged copies of good pictures and clips, each batch in a process of its own, and says what ends badly.

    python benches/fuzz_media.py FOLDER... [--count 200] [--seed 0] [--strict]

A crash, a read of more than 10 s and an error without a type are failures; each is printed with what makes it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faster_smolvlm.media import MediaPolicy

from tests.helpers.mutations import complaint, mutated, read_clip, read_picture

CLIPS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".h264", ".hevc", ".ts", ".flv", ".ogg", ".ivf", ".obu"}
SLOW = 10.0
BATCH = 20


def run(path: Path, seed: int, strict: bool, at: multiprocessing.Value, results: multiprocessing.Queue) -> None:  # type: ignore[valid-type, type-arg]
    """Read one batch; `at` says which copy is being read when the process ends."""
    data = path.read_bytes()
    read = read_clip if path.suffix in CLIPS else read_picture
    policy = MediaPolicy.strict() if strict else MediaPolicy(max_decode_seconds=5.0)
    for number in range(seed * BATCH, (seed + 1) * BATCH):
        at.value = number
        start = time.monotonic()
        found = complaint(read, mutated(data, np.random.default_rng(number)), policy)
        seconds = time.monotonic() - start
        if seconds > SLOW:
            found += f" {seconds:.1f} s"
        if found:
            results.put((number, found))


def main() -> int:
    """Return how many copies ended badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=200, help="copies of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strict", action="store_true", help="read with MediaPolicy.strict()")
    options = parser.parse_args()
    context = multiprocessing.get_context("fork")
    bad = total = 0
    for path in sorted(file for folder in options.folders for file in folder.iterdir() if file.suffix != ".md"):
        if not path.stat().st_size:
            continue
        for batch in range(options.count // BATCH):
            at, results = context.Value("q", -1), context.Queue()
            child = context.Process(target=run, args=(path, options.seed + batch, options.strict, at, results))
            child.start()
            child.join(BATCH * SLOW)
            if child.is_alive():
                child.kill()
                child.join()
            total += BATCH
            found = []
            while not results.empty():
                found.append(results.get())
            if child.exitcode:
                found.append((at.value, f"the process ends with {child.exitcode}"))
            for number, what in found:
                bad += 1
                print(f"{path.name} {number}: {what}", flush=True)
    print(f"{total} copies, {bad} ended badly")
    return bad


if __name__ == "__main__":
    sys.exit(main() > 0)
