"""Time both image processors against Transformers', and the memory that they take.

python -m benches.bench_image_processor [--tables calls stages …] [--sizes 640x480 …] [--batches 1 8] [--threads 1 2]
    [--rounds N] [--keep FILE] [--plot FILE]

Decoded pictures in, or the bytes of a JPEG; float32 frames, mask and the result object out. Each number of threads runs
in a process of its own. Sides alternate within a round; the ratio of the medians is the result, and above 1 means
faster than Transformers' default. Tables: `calls`; `stages` of our call; `types`, other outputs and reduced decoding;
`first`, the first call of a process; `crowd`, eight Python threads; `memory`, the peak above what was there before the
call, in a process for each side. `--keep` adds the calls to a file, `--plot` draws all that it holds.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from faster_smolvlm.media import MediaPolicy
from PIL import Image

from benches.timing import alternate, machine, table

SIZES = ("512x512", "640x480", "1920x1080", "4032x3024")
REAL = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
SIDES = ("Transformers", "Transformers Pil", "ours", "ours Pil")
SINGLY = "Transformers, one by one"
TABLES = ("calls", "stages", "types", "first", "crowd", "memory")
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
                sides = {side: call(side, images, files) for side in SIDES}
                if batch > 1:
                    sides[SINGLY] = one_by_one(images)
                timings = alternate(sides, rounds=options.rounds)
                case = {"size": size, "batch": batch, "source": source, "threads": options.only}
                results.append({**case, "seconds": {side: vars(timing) for side, timing in timings.items()}})
    return results


def one_by_one(images: list[Image.Image]) -> Callable[[], Any]:
    """Transformers' quickest way with a batch: a call for each picture."""
    process = processor("Transformers")
    return lambda: [process(image, return_tensors="pt") for image in images]


def types(size: str, rounds: int) -> list[list[str]]:
    """Our call with other output types, and JPEG files decoded at a reduced size."""
    image = photos(size, 1)[0]
    file, process = jpegs([image])[0], processor("ours")
    reduced = processor("ours")
    reduced.media_policy = MediaPolicy(reduced_edge=1500)
    runs: dict[str, Callable[[], Any]] = {
        f"decoded, {name}": lambda name=name: process(image, return_tensors="pt", output_dtype=name)
        for name in ("float32", "bfloat16", "uint8")
    }
    runs["JPEG bytes"] = lambda: process(file, return_tensors="pt")
    runs["JPEG bytes, reduced decoding"] = lambda: reduced(file, return_tensors="pt")
    exact, close = (side(file, return_tensors="np")["pixel_values"] for side in (process, reduced))
    off = np.abs(exact - close) * 127.5
    rows = [[size, name, str(timing)] for name, timing in alternate(runs, rounds=rounds).items()]
    rows[-1][1] += f" (mean {off.mean():.2f}, largest {off.max():.0f} levels of 255 off)"
    return rows


def first(side: str, size: str) -> float:
    """Seconds of the first call that needs room for a whole picture, in this process."""
    image, process = photos(size, 1)[0], processor(side)
    process(photos("64x64", 1), do_image_splitting=False, return_tensors="pt")
    start = time.perf_counter()
    process(image, return_tensors="pt")
    return time.perf_counter() - start


def crowd(size: str, rounds: int, people: int = 8, calls: int = 4) -> dict[str, float]:
    """Pictures a second of one Python thread and of eight that share a processor, each call on one thread."""
    process, images = processor("ours"), photos(size, people)
    images = [image.copy() for image in images]

    def work(image: Image.Image) -> None:
        for _ in range(calls):
            process(image, return_tensors="pt")

    def alone() -> None:
        for image in images:
            work(image)

    with ThreadPoolExecutor(people) as pool:
        timings = alternate({"1": alone, str(people): lambda: list(pool.map(work, images))}, rounds=rounds)
    return {name: people * calls / timing.median for name, timing in timings.items()}


def stages(size: str, rounds: int) -> list[list[str]]:
    """Where our time goes: pixels out of Pillow, frames, mask, and the rest of the call."""
    from faster_smolvlm import _rust

    image = photos(size, 1)[0]
    process = processor("ours")
    pixels = np.asarray(image)
    sizes = _rust.ImageSizes(longest_edge=2048, exact=None, tile=512, split=True)
    *_, rows, cols = _rust.layout(*pixels.shape[:2], sizes=sizes)
    shape = (1, rows * cols + 1, 512, 512)
    frames = {"do_pad": False, "return_tensors": "np"}

    def mask() -> None:
        _rust.fill_mask(_rust.empty(shape, "int64"), [shape[1]])

    file = jpegs([image])[0]
    runs: dict[str, Callable[[], Any]] = {
        "whole call": lambda: process(image, return_tensors="pt"),
        "frames, of a PIL image": lambda: process(image, **frames),
        "frames, of an array": lambda: process(pixels, **frames),
        "mask": mask,
        "decoding a JPEG before": lambda: Image.open(io.BytesIO(file)).load(),
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

    labels = [f"{r['size']} × {r['batch']}, {r['source']}, {r['threads']} thread(s)" for r in results]
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(labels) + 1.2))
    places = np.arange(len(labels))[::-1]
    for side, shift, colour in (("ours", 0.2, "#3b6ea5"), ("ours Pil", -0.2, "#c98b3c")):
        name = "SmolVLMImageProcessor" + side.removeprefix("ours").strip()
        bars = axes.barh(places + shift, [ratio(r, side) for r in results], height=0.38, color=colour, label=name)
        axes.bar_label(bars, fmt="%.1f×", padding=3, fontsize=8)
    axes.set_yticks(places, labels)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times as fast as the class of this name in Transformers")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def ratio(result: dict[str, Any], side: str) -> float:
    """Median of Transformers' class over the median of ours."""
    return float(result["seconds"][REFERENCE[side]]["median"] / result["seconds"][side]["median"])


def calls_table(results: list[dict[str, Any]]) -> str:
    """The times of whole calls."""
    rows = []
    for result in results:
        head = [str(result[key]) for key in ("threads", "size", "batch", "source")]
        seconds = {side: each["median"] for side, each in result["seconds"].items()}
        singly = seconds.get(SINGLY)
        milliseconds = [f"{seconds[side] * 1e3:.1f}" for side in SIDES]
        ratios = [f"{ratio(result, side):.1f}" for side in REFERENCE]
        rows.append([*head, *milliseconds, *ratios, f"{singly / seconds['ours']:.1f}" if singly else ""])
    columns = [*(f"{side}, ms" for side in SIDES), "ratio", "ratio Pil", "ratio to single calls"]
    return table(["threads", "size", "batch", "input", *columns], rows)


def first_table(sizes: list[str], rounds: int) -> str:
    """The first calls of fresh processes, sides alternating."""
    rows = []
    for size in sizes:
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side, each in seconds.items():
                each.append(child("--first", side, size))
        medians = {side: statistics.median(each) for side, each in seconds.items()}
        ratios = [f"{medians[reference] / medians[side]:.1f}" for side, reference in REFERENCE.items()]
        rows.append([size, *(f"{medians[side] * 1e3:.1f}" for side in SIDES), *ratios])
    return table(["first call", *(f"{side}, ms" for side in SIDES), "ratio", "ratio Pil"], rows)


def memory_table(batches: list[int]) -> str:
    """Peaks above the pictures."""
    rows = []
    for batch in batches:
        peaks = {side: child("--peak", side, "1920x1080", str(batch)) for side in SIDES}
        shares = [f"{peaks[side] / peaks[reference]:.2f}" for side, reference in REFERENCE.items()]
        rows.append([str(batch), *(f"{peaks[side] / 1e6:.0f}" for side in SIDES), *shares])
    return table(["batch at 1920x1080", *(f"{side}, MB" for side in SIDES), "share", "share Pil"], rows)


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--first", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.only:
        return print(json.dumps(measure(options)))
    if options.peak:
        return print(json.dumps(peak(*options.peak[:2], int(options.peak[2]))))
    if options.first:
        return print(json.dumps(first(*options.first)))

    from faster_smolvlm import _rust

    print(machine("torch", "torchvision", "transformers", "pillow"))
    print(f"kernels: {_rust.kernel_names()[0]}, build: {_rust.BUILD_PROFILE}")
    results = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else []
    if "calls" in options.tables:
        cases = ["--rounds", str(options.rounds), "--sizes", *options.sizes, "--batches", *map(str, options.batches)]
        new = [r for count in options.threads for r in child(*cases, "--only", str(count), threads=count)]
        results += new
        print("\n" + calls_table(new))
    if options.keep:
        options.keep.write_text(json.dumps(results))
    if options.plot:
        plot(results, options.plot)
    os.environ["FASTER_SMOLVLM_NUM_THREADS"] = "1"
    for name, rows_of in (("stages", stages), ("types", types)):
        if name in options.tables:
            rows = [row for size in options.sizes for row in rows_of(size, options.rounds)]
            print("\n" + table(["size", f"{name}, 1 thread", "time"], rows))
    if "first" in options.tables:
        print("\n" + first_table(options.sizes, options.rounds))
    if "crowd" in options.tables:
        speeds = [(size, crowd(size, options.rounds)) for size in options.sizes]
        rows = [[size, *(f"{each:.1f}" for each in s.values()), f"{s['8'] / s['1']:.2f}"] for size, s in speeds]
        print("\n" + table(["size", "1 Python thread, pictures/s", "8 threads", "ratio"], rows))
    if "memory" in options.tables:
        print("\n" + memory_table(options.batches))


if __name__ == "__main__":
    main()
