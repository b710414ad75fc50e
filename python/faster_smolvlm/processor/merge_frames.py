"""Laying the frames of pictures and of clips into one row of pixels per prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..text.expansion import PromptPart
from .media import Pixels

if TYPE_CHECKING:
    from ..media.kinds import AnyArray


def merge_frames(parts: Sequence[Sequence[PromptPart]], pictures: Pixels, clips: Pixels) -> Pixels:
    """Return `pixel_values` and `pixel_attention_mask` (batch, frames, …), frames in the order of the placeholders.

    `pictures` hold one row per prompt, `clips` one row per clip, both by the same names. Raises ValueError if their
    frames differ in size.
    """
    merged = {}
    for name, picture_rows in pictures.items():
        if not hasattr(picture_rows, "shape"):
            raise ValueError("pictures and clips in one call need do_pad=True, so that their frames have one size")
        next_clip = iter(clips[name])
        rows = []
        for picture_row, sample in zip(picture_rows, parts, strict=True):
            row: list[AnyArray] = []
            first = 0
            for part in sample:
                if part.clip is None:
                    row.extend(picture_row[first : first + part.num_frames])
                    first += part.num_frames
                else:
                    row.extend(next(next_clip)[: part.num_frames])
            rows.append(row)
        merged[name] = _stack(rows, picture_rows)
    return merged


def _stack(rows: list[list[AnyArray]], like: AnyArray) -> AnyArray:
    """Return one array or tensor, as `like` is; zeros pad the rows that have fewer frames than the longest."""
    shape = tuple(like.shape[2:])
    for row in rows:
        for frame in row:
            if tuple(frame.shape) != shape:
                raise ValueError(
                    f"the frames of pictures and clips in one call must have one size, got {shape} for pictures and "
                    f"{tuple(frame.shape)} for clips: set the same max_image_size in both processors"
                )
    size = (len(rows), max(map(len, rows)), *shape)
    stacked = np.zeros(size, dtype=like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(size)
    for target, row in zip(stacked, rows, strict=True):
        for index, frame in enumerate(row):
            target[index] = frame
    return stacked
