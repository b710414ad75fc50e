"""Compare the frames of generated pictures with Transformers', bit for bit, until a number of cases has passed.

python -m benches.fuzz_image_processor [--cases 100000] [--seed 0] [--largest 4096] [--minutes M]; prints the first
differences and exits with 1 where there are any. Small checkpoints keep a case quick; sizes go to `--largest`,
ratios to 1:500. Stops after `--minutes`, saying how many cases passed.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from typing import Any

import faster_smolvlm
import numpy as np
import torch
import transformers
from PIL import Image

CHECKPOINTS = [(64, 16), (66, 16), (128, 32), (40, 13), (32, 32), (100, 40)]
CLASSES = ("SmolVLMImageProcessor", "SmolVLMImageProcessorPil")


def sides(name: str) -> list[tuple[Any, Any]]:
    """Both processors for every checkpoint."""
    settings = [
        {"size": {"longest_edge": edge}, "max_image_size": {"longest_edge": tile}} for edge, tile in CHECKPOINTS
    ]
    return [(getattr(transformers, name)(**each), getattr(faster_smolvlm, name)(**each)) for each in settings]


def picture(choose: random.Random, generator: np.random.Generator, largest: int) -> Image.Image:
    """Noise, black and white, or a gradient, of any mode."""
    while True:
        height, width = (int(largest ** choose.random()) for _ in range(2))
        if max(height, width) <= 500 * min(height, width) and height * width <= 1 << 16:
            break
    kind = choose.randrange(3)
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 1:
        pixels = (pixels > 127).astype(np.uint8) * 255
    elif kind == 2:
        pixels = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], pixels.shape)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.convert(choose.choice(("RGB", "RGB", "RGB", "L", "RGBA", "CMYK", "1")))


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=int, default=4096, help="longest side of a picture")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    choose, generator = random.Random(options.seed), np.random.default_rng(options.seed)
    pairs = [(name, pair) for name in CLASSES for pair in sides(name)]
    start, failures = time.monotonic(), 0
    for case in range(options.cases):
        name, (reference, processor) = choose.choice(pairs)
        image = picture(choose, generator, options.largest)
        resample = choose.choice((1, 1, 1, 0, 2, 3) if name == CLASSES[0] else (1, 1, 1, 0, 2, 3, 4, 5))
        call = {"do_image_splitting": choose.random() < 0.8, "resample": resample}
        theirs, ours = (
            side(image, return_tensors="np", return_row_col_info=True, **call) for side in (reference, processor)
        )
        equal = theirs["pixel_values"].tobytes() == ours["pixel_values"].tobytes()
        if not equal or theirs["rows"] != ours["rows"] or theirs["cols"] != ours["cols"]:
            failures += 1
            if failures <= 10:
                print(f"case {case} of seed {options.seed}: {name} {image.mode} {image.size} {call} {processor.size}")
        done, minutes = case + 1, (time.monotonic() - start) / 60
        if done % 1000 == 0 or done == options.cases or minutes >= options.minutes:
            print(f"{done} cases, {failures} with differences, {minutes:.1f} minutes", flush=True)
        if minutes >= options.minutes:
            break
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
