"""Calls everything of the Rust half with absurd numbers, in a process with little memory: run by a test.

Prints each call that ends in another way than with a result or an ordinary exception.
"""

from __future__ import annotations

import copy
import itertools
import random
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import faster_smolvlm
import numpy as np
from faster_smolvlm import _rust
from faster_smolvlm.native import NativeSmolVLM, model

NUMBERS = (0, -1, 1, 7, 2**31, 2**40, 2**63 - 1, 2**64 - 1, 2**64, float("nan"), float("inf"), -1.5, 1e308)
INTEGERS = (0, -1, 1, 7, 2**31, 2**40, 2**63 - 1, 2**64 - 1)
MEMORY = 4 << 30
Call = Callable[[], object]
Calls = Iterator[tuple[str, Call]]


def frames() -> Calls:
    """Choices of frames, and streams of them."""
    draw = random.Random(1)
    table: dict[str, int] = {"uniform_frames": 2, "frames_at_rate": 3, "sample_frames": 6}
    for name, count in table.items():
        function: Callable[..., object] = getattr(_rust, name)
        for numbers in [[draw.choice(NUMBERS) for _ in range(count)] for _ in range(1500)]:
            yield f"{name}{numbers}", lambda f=function, n=numbers: f(*n)
    for a, b in itertools.product(NUMBERS, repeat=2):
        listed: list[tuple[str, tuple[object, ...]]] = [
            ("key_frames", ([a, b], b)),
            ("explicit_frames", (a, [b, a])),
            ("frames_at_times", ([0.0, a], b)),
        ]
        for name, arguments in listed:
            yield f"{name}{arguments}", lambda n=name, g=arguments: getattr(_rust, n)(*g)
        for options in ({}, {"fps": b}, {"indices": [b]}, {"keys_only": True}):
            yield f"FrameStream({a}, {options})", lambda a=a, b=b, o=options: _stream(a, b, o)


def _stream(limit: float, time: float, options: dict[str, object]) -> None:
    stream = _rust.FrameStream(limit, **options)
    for shown in (0.0, time, 2.0):
        stream.offer(shown, True)
    stream.finish()


def arrays() -> Calls:
    """Arrays, masks and hashes."""
    for a, b in itertools.product(NUMBERS, repeat=2):
        yield f"empty([{a}, {b}])", lambda a=a, b=b: _rust.empty([a, b], "int64")
    for shape in ([], [1] * 32, [1] * 33, [1] * 65, [1] * 100_000, [0, 2**62, 2**62], [2**40, 2**40, 0]):
        for dtype in ("uint8", "float32", "complex"):
            yield f"empty({shape[:70]}, {dtype})", lambda s=shape, d=dtype: _rust.empty(s, d)
    for n, sides in itertools.product(NUMBERS, ((2, 3, 4, 5), (0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5))):
        mask = np.zeros(sides, np.int64)
        yield f"fill_mask{sides}, {n}", lambda m=mask, n=n: _rust.fill_mask(m, [n, n])
    for n in NUMBERS:
        if n not in (1, 7):
            yield f"machine_limits({n})", lambda n=n: _rust.machine_limits(n)
        if n != 7:
            zeros = np.zeros(9, np.uint8)
            yield "weights_fingerprint", lambda n=n, z=zeros: _rust.weights_fingerprint([z], n)
    for name in ("pool_waiting", "pool_trim", "kernel_names", "image_threads"):
        yield name, getattr(_rust, name)


def pictures() -> Calls:
    """Sizes, resizing and frames."""
    functions = {"resize": np.uint8, "resize_float32": np.float32, "resize_float64": np.float64}
    for (name, dtype), shape in itertools.product(
        functions.items(), ((5, 6, 3), (0, 6, 3), (5, 0, 3), (5, 6, 0), (1, 1, 1))
    ):
        options: dict[str, object] = {"arithmetic": "torch"} if name == "resize" else {}
        image = np.zeros(shape, dtype)
        for a, b in itertools.product(NUMBERS, repeat=2):
            yield (
                f"{name}{shape}, {a}, {b}",
                lambda f=name, i=image, a=a, b=b, o=options: getattr(_rust, f)(i, a, b, resample=2, **o),
            )
        for resample in (*range(-1, 8), 255, 2**40):
            yield (
                f"{name}, {resample}",
                lambda f=name, i=image, r=resample, o=options: getattr(_rust, f)(i, 9, 9, resample=r, **o),
            )
    picture = np.zeros((5, 6, 3), np.uint8)
    sides = ((0, 0), (1, 2**40), (2**63 - 1, 2**63 - 1), (2**31, 7), (2**64 - 1, 1))
    for edge, tile, most in itertools.product((None, *INTEGERS), INTEGERS, (None, *INTEGERS)):
        for exact in (None, (7, 2**40), (2**64 - 1, 2**63 - 1)):
            try:
                sizes = _rust.ImageSizes(longest_edge=edge, exact=exact, tile=tile, split=True, max_tiles=most)
            except (ValueError, OverflowError):
                continue
            for height, width in sides:
                yield (
                    f"layout {edge} {tile} {most} {exact} {height} {width}",
                    lambda s=sizes, h=height, w=width: _rust.layout(h, w, sizes=s),
                )
            for place, shape in itertools.product((0, 2**40, 2**64 - 1), ((1, 3, 4, 4), (9, 3, 0, 0), (17, 3, 7, 7))):
                yield (
                    f"preprocess {edge} {tile} {most} {place}",
                    lambda s=sizes, p=place, o=shape: _frames(picture, s, p, o),
                )


def _frames(picture: np.ndarray, sizes: _rust.ImageSizes, place: int, shape: tuple[int, ...]) -> None:
    settings = _rust.ImageSettings(
        sizes, resample=2, arithmetic="pillow", table=np.zeros((3, 256), np.float32), formula=[(1.0, 0.0, 1.0)] * 3
    )
    _rust.preprocess([picture], [place], np.zeros(shape, np.uint8), settings)


def engine() -> Calls:
    """The model: its configuration, options, sequences, steps and frames."""
    given: list[tuple[list[str], dict[str, dict[str, object]], dict[str, object]]] = []
    real = _rust.NativeModel

    class Recorder:
        STEP_ROWS = real.STEP_ROWS

        def __new__(cls, *arguments: object) -> Recorder:
            given.append(arguments)
            return cast("Recorder", real(*arguments))

    model.NativeModel = Recorder
    loaded = NativeSmolVLM.from_pretrained(Path(faster_smolvlm.__file__).parent / "demo").rust
    paths, sizes, options = given[0]
    for part in sizes:
        for name in sizes[part] if isinstance(sizes[part], dict) else [""]:
            for number in (*NUMBERS, 1 << 20):
                changed = copy.deepcopy(sizes)
                if name:
                    changed[part][name] = number
                else:
                    changed[part] = number
                yield f"{part}.{name}={number}", lambda c=changed: real(paths, c, options)
                yield f"checkpoint_tensors, {part}.{name}={number}", lambda c=changed: _rust.checkpoint_tensors(c)
    for name, number in itertools.product(options, NUMBERS):
        other = {**options, name: number}
        yield f"{name}={number}", lambda o=other: real(paths, sizes, o)
    one = loaded.open()
    for name, number in itertools.product(("close", "length", "grow_cache"), NUMBERS):
        if (name, number) != ("close", one):
            yield f"{name}({number})", lambda f=name, n=number: getattr(loaded, f)(n)
    for name, a, b in itertools.product(("fork", "truncate"), (one, *NUMBERS), NUMBERS):
        yield f"{name}({a}, {b})", lambda f=name, a=a, b=b: getattr(loaded, f)(a, b)
    draw = random.Random(2)
    for _ in range(1500):
        step = SimpleNamespace(
            sequences=draw.choice(([], [one], [one, one], [2**63], [2**64 - 1])),
            lengths=draw.choice(([], [0], [1], [1, 1], [2**40], [2**63, 2**63], [2**64 - 1, 2])),
            ids=np.array(draw.choice(([], [0], [-1], [2**62], [0, 0])), np.int64),
            features=np.zeros((draw.randrange(2), cast("int", sizes["text"]["hidden_size"])), np.float32),
            feature_rows=np.array(draw.choice(([], [-1], [0], [2**62], [-(2**63)], [-1, -1])), np.int64),
            outputs=draw.choice(([], [0], [2**64 - 1], [1], [0] * 600, [0, 0])),
        )
        yield f"step {step}", lambda s=step: loaded.step(s, draw.random() < 0.5)
    for shape, mask in itertools.product(
        ((3, 0, 0), (0, 64, 64), (3, 1, 1), (1, 64, 64), (3, 63, 65), (3, 0, 2**40)), ((0, 0), (4, 4), (0, 2**40))
    ):
        pixels, visible = np.full(shape, np.nan, np.float32), np.ones(mask, np.bool_)
        yield f"encode {shape} {mask}", lambda p=pixels, m=visible: loaded.encode(p, m)
    for shape in ((), (0,), (2**40,), (2**63, 2), (2**64 - 1,), (1,) * 100):
        tensor = ("model.text_model.embed_tokens.weight", "float32", shape, np.zeros(4, np.uint8))
        yield f"from_tensors {shape}", lambda t=tensor: real.from_tensors([t], sizes, options)


def main() -> None:
    """Make the calls of the group that is named on the command line."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    calls = {"frames": frames, "arrays": arrays, "pictures": pictures, "engine": engine}[sys.argv[1]]()
    count = 0
    for name, call in calls:
        count += 1
        try:
            call()
        except SystemError as error:
            print(f"{name}: {error!r:.300}")
        except Exception:  # an ordinary exception is what an absurd number deserves
            pass
        except BaseException as error:  # a panic
            print(f"{name}: {error!r:.300}")
    print("calls", count)


if __name__ == "__main__":
    main()
