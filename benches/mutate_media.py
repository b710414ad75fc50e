"""Damaged pictures and clips through every entrance: no crash, no hang, no traceback, no error without a type.

``python benches/mutate_media.py DATA [--count 8] [--seed 0] [--seconds 20] [--side]`` takes good files from DATA (the
folders images, videos; bad_images and bad_videos as they are), damages each `count` times, and hands every one to
`faster-smolvlm describe` and, by path and by data URI, to accelerated image and video processors of Transformers. Each
entrance works in a child process, which is started anew if it ends or holds one file longer than `seconds`. What is
wrong is printed, and the exit status is 1. With ``--side`` pictures are also read by Transformers alone, and the
numbers of equal and other pixels are given; there, it may crash.
"""

from __future__ import annotations

import argparse
import base64
import collections
import json
import os
import selectors
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.mutations import mutated
from tests.helpers.picture_files import FILES

SMALL = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
ENTRANCES = ("describe", "pictures", "pictures by Pillow", "clips")
LARGEST = 2 << 20  # bytes of a file that is damaged


def worker(entrance: str) -> None:
    """Answer each line, the path of a file, with the outcome by path and by data URI."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    attempt = _attempts(entrance)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        path = line.rstrip("\n")
        uri = "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()
        print(json.dumps([attempt(path), attempt(uri)]), file=answers, flush=True)


def _attempts(entrance: str) -> Any:
    """Return the function of one attempt: "answered …", "refused", or what is wrong."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if entrance == "describe":
        return _describing()
    import transformers
    from faster_smolvlm.integrations.transformers import accelerate
    from faster_smolvlm.media import MediaError

    made = {"pictures": "SmolVLMImageProcessor", "pictures by Pillow": "SmolVLMImageProcessorPil"}
    plain = entrance == "Transformers alone"
    processor = getattr(transformers, made.get(entrance, "SmolVLMVideoProcessor" if not plain else made["pictures"]))()
    if not plain:
        accelerate(processor)
    if entrance == "clips":

        def read(source: str) -> Any:
            return processor([source], return_tensors="pt", num_frames=4, **SMALL)["pixel_values"]
    else:

        def read(source: str) -> Any:
            pixels = processor.fetch_images(source)
            processor([[pixels]] if getattr(pixels, "ndim", 3) == 3 else pixels, return_tensors="np", **SMALL)
            return pixels

    def attempt(source: str) -> str:
        try:
            pixels = np.ascontiguousarray(np.asarray(read(source)))
            return f"answered {pixels.shape} {pixels.dtype} {zlib.crc32(pixels)}"
        except MediaError as error:
            return _checked_message(str(error))
        except Exception as error:
            return "refused" if plain else f"{type(error).__name__}: {str(error)[:200]}"

    return attempt


def _describing() -> Any:
    import contextlib
    import io

    from faster_smolvlm import SmolVLM
    from faster_smolvlm.cli import describe, main

    vlm = SmolVLM.from_pretrained("demo")
    describe._load = lambda name: vlm

    def attempt(source: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["describe", "--model", "demo", "--json", "--max-new-tokens", "1", source])
        lines = out.getvalue().splitlines()
        if len(lines) != 1 or "Traceback" in err.getvalue():
            return f"{len(lines)} lines, {err.getvalue()[:300]}"
        record = json.loads(lines[0])
        if "error" not in record:
            return "answered" if status == 0 else f"status {status} with an answer"
        return _checked_message(record["error"]) if status == 1 else f"status {status} with an error"

    return attempt


def _checked_message(message: str) -> str:
    if len(message) > 800 or "0x" in message or "Traceback" in message:
        return f"a message of {len(message)} characters: {message[:300]}"
    return "refused"


class Child:
    """A worker for one entrance."""

    def __init__(self, entrance: str, seconds: float) -> None:
        self.entrance, self.seconds = entrance, seconds
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, path: Path) -> list[str]:
        """Return what the worker says about a file by path and by data URI, or how it failed."""
        if self._process is None:
            command = [sys.executable, __file__, "--worker", self.entrance]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._line(600)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n".encode())
        self._process.stdin.flush()
        line = self._line(2 * self.seconds)
        if line:
            found: list[str] = json.loads(line)
            return found
        status = self._process.poll()
        self.close()
        return [f"HANG: more than {2 * self.seconds} s" if status is None else f"CRASH: exit status {status}"]

    def _line(self, seconds: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return b""
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
        return line

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


def cases(data: Path, count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield the kind, "images" or "videos", a name and the bytes of each file."""
    for kind in ("images", "videos"):
        for path in _files(data / f"bad_{kind}"):
            yield kind, path.name, path.read_bytes()
    for index, (name, make) in enumerate(FILES.items()):
        for number, changed in _damaged(make(), count, seed + index):
            yield "images", f"{name}, {number}", changed
    for kind in ("images", "videos"):
        for index, path in enumerate(_files(data / kind)):
            if path.stat().st_size <= LARGEST:
                for number, changed in _damaged(path.read_bytes(), count, seed + 1000 + index):
                    yield kind, f"{path.name}, {number}", changed


def _damaged(data: bytes, count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield number, mutated(data, rng)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix != ".md"]


def run(options: argparse.Namespace) -> int:
    """Return 1 if anything is wrong, else 0."""
    kinds = {"describe": ("images", "videos"), "clips": ("videos",)}
    children = {name: Child(name, options.seconds) for name in ENTRANCES}
    side = Child("Transformers alone", options.seconds) if options.side else None
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for kind, name, data in cases(options.data, options.count, options.seed):
            path.write_bytes(data)
            for entrance, child in children.items():
                if kind not in kinds.get(entrance, ("images",)):
                    continue
                outcomes = child.ask(path)
                for outcome in outcomes:
                    known = outcome.split()[0] in ("answered", "refused")
                    counts[entrance, outcome.split()[0] if known else "WRONG"] += 1
                    if not known:
                        wrong += 1
                        print(f"{entrance}: {name}: {outcome}", flush=True)
                if side is not None and entrance == "pictures":
                    theirs = side.ask(path)[0]
                    counts["Transformers alone", _compared(theirs, outcomes[0])] += 1
                    if options.verbose and _compared(theirs, outcomes[0]) in ("other pixels", "only theirs"):
                        print(f"  {name}: {theirs} | {outcomes[0]}", flush=True)
    for child in (*children.values(), *([side] if side else [])):
        child.close()
    for (entrance, outcome), number in sorted(counts.items()):
        print(f"{entrance:20s} {outcome:40s} {number:6d}")
    return int(wrong > 0)


def _compared(theirs: str, ours: str) -> str:
    if not theirs.startswith(("answered", "refused")):
        return "crashed, " + ours.split()[0]
    if theirs.startswith("answered") and ours.startswith("answered"):
        return "equal pixels" if theirs == ours else "other pixels"
    return {("answered", "refused"): "only theirs", ("refused", "answered"): "only ours"}.get(
        (theirs.split()[0], ours.split()[0]), "both refuse"
    )


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--side", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--worker")
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return 0
    if options.data is None:
        parser.error("DATA is missing")
    return run(options)


if __name__ == "__main__":
    raise SystemExit(main())
