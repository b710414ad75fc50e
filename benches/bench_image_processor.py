"""Time both image processors against Transformers', and the memory that they take.

python -m benches.bench_image_processor [--rounds N] [--sizes 640x480 …] [--batches 1 8] [--threads 1 2] [--plot FILE]

Decoded pictures in, or the bytes of a JPEG; float32 frames, mask and the result object out. Each number of threads runs
in a process of its own. Sides alternate within a round; the ratio of the medians is the result, and above 1 means
faster than Transformers' default. Memory is the peak above what was there before the call, in a process for each side.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benches.timing import alternate, machine, table

SIZES = ("512x512", "640x480", "1920x1080", "4032x3024")
REAL = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
SIDES = ("Transformers", "Transformers Pil", "ours", "ours Pil")
REFERENCE = {"ours": "Transformers", "ours Pil": "Transformers Pil"}


def photos(size: str, count: int) -> list[Image.Image]:
    """Photos of scikit-image, scaled to `size` and given grain, so that they compress and resize like photos."""
    from skimage import data

    width, height = map(int, size.split("x"))
    generator = np.random.default_rng(0)
    made = []
    for index in range(count):
        photo = Image.fromarray((data.coffee, data.astronaut, data.chelsea, data.rocket)[index % 4]())
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
        grain = generator.normal(0, 4, (height, width, 3))
        made.append(Image.fromarray(np.clip(np.asarray(photo) + grain, 0, 255).astype(np.uint8)))
    return made


def jpegs(images: list[Image.Image]) -> list[bytes]:
    """The same as JPEG files."""
    files = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def processor(side: str) -> Any:
    """The image processor of a side."""
    name = "SmolVLMImageProcessorPil" if side.endswith("Pil") else "SmolVLMImageProcessor"
    if side.startswith("Transformers"):
        import transformers

        return getattr(transformers, name)(**REAL)
    import faster_smolvlm

    return getattr(faster_smolvlm, name)(**REAL)


def call(side: str, images: list[Image.Image], files: list[bytes] | None) -> Callable[[], Any]:
    """One call with a batch of samples of one picture each; files are opened and decoded inside."""
    process = processor(side)
    if files is None:
        return lambda: process([[image] for image in images], return_tensors="pt")
    return lambda: process([[Image.open(io.BytesIO(file))] for file in files], return_tensors="pt")


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time every case with the threads of this process."""
    import torch

    torch.set_num_threads(options.only)
    results = []
    for size in options.sizes:
        for batch in options.batches:
            for source in ("decoded", "JPEG") if batch == 1 else ("decoded",):
                images = photos(size, batch)
                files = jpegs(images) if source == "JPEG" else None
                timings = alternate({side: call(side, images, files) for side in SIDES}, rounds=options.rounds)
                case = {"size": size, "batch": batch, "source": source, "threads": options.only}
                results.append({**case, "seconds": {side: vars(timing) for side, timing in timings.items()}})
    return results


def stages(size: str, rounds: int) -> list[list[str]]:
    """Where our time goes: pixels out of Pillow, frames, mask, and the rest of the call."""
    from faster_smolvlm import _rust

    image = photos(size, 1)[0]
    process = processor("ours")
    pixels = np.asarray(image)
    *_, rows, cols = _rust.layout(*pixels.shape[:2], longest_edge=2048, exact=None, tile=512, split=True)
    shape = (1, rows * cols + 1, 512, 512)
    frames = {"do_pad": False, "return_tensors": "np"}

    def mask() -> None:
        _rust.fill_mask(_rust.empty(shape, "int64"), [shape[1]])

    runs: dict[str, Callable[[], Any]] = {
        "whole call": lambda: process(image, return_tensors="pt"),
        "pixels out of Pillow": lambda: np.asarray(image).sum(where=False),
        "frames": lambda: process(pixels, **frames),
        "mask": mask,
    }
    return [[size, name, str(timing)] for name, timing in alternate(runs, rounds=rounds).items()]


def peak(side: str, size: str, batch: int) -> int:
    """Bytes that a call adds to the resident memory of this process at its peak (Linux)."""
    images = photos(size, batch)
    run = call(side, images, None)
    # What loading the libraries takes is not counted; one frame leaves nothing behind that could be used again.
    processor(side)(photos("64x64", 1), do_image_splitting=False, return_tensors="pt")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    result = run()
    assert result
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """A line of the status of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def child(*arguments: str, threads: int = 1) -> Any:
    """Run this file with a number of threads and return what it prints as JSON."""
    environment = {**os.environ, "FASTER_SMOLVLM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benches.bench_image_processor", *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels, ratios = [], []
    for result in results:
        if result["batch"] == 1 or result["source"] == "decoded":
            labels.append(f"{result['size']} ×{result['batch']}, {result['source']}, {result['threads']} thr.")
            ratios.append(ratio(result, "ours"))
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(labels) + 1.2))
    bars = axes.barh(labels[::-1], ratios[::-1], color="#3b6ea5")
    axes.bar_label(bars, fmt="%.1f×", padding=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times as fast as Transformers' default image processor")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def ratio(result: dict[str, Any], side: str) -> float:
    """Median of Transformers' class over the median of ours."""
    return float(result["seconds"][REFERENCE[side]]["median"] / result["seconds"][side]["median"])


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.only:
        print(json.dumps(measure(options)))
        return
    if options.peak:
        side, size, batch = options.peak
        print(json.dumps(peak(side, size, int(batch))))
        return

    from faster_smolvlm import _rust

    print(machine("torch", "torchvision", "transformers", "pillow"))
    print(f"kernels: {_rust.kernel_names()[0]}, build: {_rust.BUILD_PROFILE}\n")
    cases = ["--rounds", str(options.rounds), "--sizes", *options.sizes, "--batches", *map(str, options.batches)]
    results = [r for count in options.threads for r in child(*cases, "--only", str(count), threads=count)]
    rows = []
    for result in results:
        milliseconds = [f"{result['seconds'][side]['median'] * 1e3:.1f}" for side in SIDES]
        head = [str(result[key]) for key in ("threads", "size", "batch", "source")]
        rows.append([*head, *milliseconds, *(f"{ratio(result, side):.1f}" for side in REFERENCE)])
    header = ["threads", "size", "batch", "input", *(f"{side}, ms" for side in SIDES), "ratio", "ratio Pil"]
    print(table(header, rows), "\n")
    os.environ["FASTER_SMOLVLM_NUM_THREADS"] = "1"
    print(table(["size", "stage, 1 thread", "time"], [row for s in options.sizes for row in stages(s, options.rounds)]))
    memory = []
    for batch in options.batches:
        peaks = {side: child("--peak", side, "1920x1080", str(batch)) for side in SIDES}
        shares = [f"{peaks[side] / peaks[reference]:.2f}" for side, reference in REFERENCE.items()]
        memory.append([str(batch), *(f"{peaks[side] / 1e6:.0f}" for side in SIDES), *shares])
    header = ["batch at 1920x1080", *(f"{side}, MB" for side in SIDES), "share", "share Pil"]
    print("\n" + table(header, memory))
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
