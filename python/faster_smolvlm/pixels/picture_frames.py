"""From decoded pictures to their tiles: natively for uint8, in single steps for other types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .. import _rust
from .arithmetic import BILINEAR, Arithmetic, Array
from .call_settings import KEEP_SIZE, Settings, plain, resize_target
from .conversion import conversion, rescaling
from .planes import PillowPixels
from .sources import naming

Planes = Array | PillowPixels
"""(channels, height, width)."""
Samples = Sequence[Sequence[Planes]]

# NumPy has no bfloat16: its bits are kept in a uint16.
_STORAGE = {"bfloat16": "uint16", "uint8": "uint8"}


class Grid(NamedTuple):
    """A picture's size after each of the two resizings, and its tiles; both counts are 0 for one frame."""

    resized: tuple[int, int]
    cut: tuple[int, int]
    rows: int
    cols: int

    @property
    def frames(self) -> int:
        """The tiles and the global view, or the one frame."""
        return self.rows * self.cols + 1


def grid_of(height: int, width: int, settings: Settings) -> Grid:
    """Return how a picture of this size is cut; ValueError for sizes below 1."""
    tile, split = settings["max_image_size"]["longest_edge"], bool(settings["do_image_splitting"])
    return Grid(*_rust.layout(height, width, sizes=_rust.ImageSizes(tile=tile, split=split, **resize_target(settings))))


def native_frames(
    samples: Samples, grids: list[list[Grid]], shape: tuple[int, ...], settings: Settings, arithmetic: Arithmetic
) -> Array:
    """Return the frames of uint8 pictures, of `shape` (samples, frames, channels, tile, tile), missing ones 0."""
    table, formula = conversion(arithmetic, shape[2], settings)
    storage = _STORAGE.get(str(plain(settings["output_dtype"])), "float32")
    out = _rust.empty((shape[0] * shape[1], *shape[2:]), storage)
    images, starts = [], []
    for row, (sample, sample_grids) in enumerate(zip(samples, grids, strict=True)):
        start = row * shape[1]
        for image, grid in zip(sample, sample_grids, strict=True):
            images.append(image.image if isinstance(image, PillowPixels) else image.transpose(1, 2, 0))
            starts.append(start)
            start += grid.frames
        out[start : (row + 1) * shape[1]] = 0
    split, target = bool(settings["do_image_splitting"]), resize_target(settings)
    prepared = _rust.ImageSettings(
        _rust.ImageSizes(tile=shape[-1], split=split, **target),
        resample=int(BILINEAR if settings["resample"] is None else settings["resample"]),
        arithmetic=arithmetic.name,
        table=table,
        formula=formula,
    )
    _rust.preprocess(images, starts, out, prepared)
    return out.reshape(shape)


def stepwise_frames(samples: Samples, shape: tuple[int, ...], settings: Settings, arithmetic: Arithmetic) -> Array:
    """The same as float32 for pictures that are not uint8."""
    out = np.zeros(shape, dtype=np.float32)
    for row, sample in enumerate(samples):
        index = 0
        for column, image in enumerate(sample):
            with naming(f"image {column} of sample {row}"):
                for frame in _cut(np.asanyarray(image), settings, arithmetic):
                    out[row, index] = arithmetic.rescale_and_normalize(frame, *rescaling(settings))
                    index += 1
    return out


def _cut(image: Array, settings: Settings, arithmetic: Arithmetic) -> Iterator[Array]:
    resample, tile = settings["resample"], settings["max_image_size"]["longest_edge"]
    if settings["do_resize"]:
        sizes = _rust.ImageSizes(tile=tile, split=True, **resize_target(settings))
        (height, width), *_ = _rust.layout(*image.shape[1:], sizes=sizes)
        image = arithmetic.resize(image, height, width, resample)
    split = bool(settings["do_image_splitting"])
    sizes = _rust.ImageSizes(tile=tile, split=split, **KEEP_SIZE)
    _, (height, width), rows, cols = _rust.layout(*image.shape[1:], sizes=sizes)
    image = arithmetic.resize(image, height, width, resample)
    for row in range(rows):
        for col in range(cols):
            yield image[:, row * tile : (row + 1) * tile, col * tile : (col + 1) * tile]
    yield arithmetic.resize(image, tile, tile, resample) if rows else image
