"""A batch of prompts as the native engine reads it: ids without padding, frames, and which position takes which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .frames import Float32, Frame
from .reuse import Unit

Int64 = npt.NDArray[np.int64]


class PromptBatch:
    """The prompts of one call: `ids` holds int64 [length] for each, without padding.

    The image tokens of all `frames` are numbered through; `image_rows` holds for each position of each prompt the
    number of the one that it takes, -1 for text.
    """

    def __init__(
        self,
        input_ids: npt.ArrayLike,
        attention_mask: npt.ArrayLike | None,
        frames: Sequence[Frame],
        image_token_id: int,
    ) -> None:
        self.ids = _without_padding(input_ids, attention_mask)
        self.frames = frames
        self.image_rows: list[Int64] = []
        self.image_positions = sum(int((ids == image_token_id).sum()) for ids in self.ids)
        count = 0
        for ids in self.ids:
            is_image = ids == image_token_id if frames else np.zeros(len(ids), np.bool_)
            self.image_rows.append(np.where(is_image, count + np.cumsum(is_image) - 1, -1))
            count += int(is_image.sum())

    @property
    def lengths(self) -> list[int]:
        """Numbers of tokens."""
        return [len(ids) for ids in self.ids]

    @property
    def frame_tokens(self) -> int:
        """Number of image tokens of each frame; 1 if there are no frames."""
        return self.frames[0].tokens if self.frames else 1

    def check(self, position_limit: int, vocabulary: int) -> None:
        """Raise ValueError for prompts that a model cannot read."""
        for row, ids in enumerate(self.ids):
            if not 0 < len(ids) <= position_limit:
                raise ValueError(
                    f"Prompt {row} has {len(ids)} tokens; 1 to {position_limit} are possible with this model."
                )
            if ids.min() < 0 or ids.max() >= vocabulary:
                bad = next(int(token) for token in ids if not 0 <= token < vocabulary)
                raise ValueError(f"Prompt {row} holds the token id {bad}; the vocabulary has {vocabulary} tokens.")

    def check_frames(self) -> None:
        """Raise ValueError if there are not as many positions for image tokens as frames have."""
        features = len(self.frames) * self.frame_tokens
        if self.frames and self.image_positions != features:
            raise ValueError(
                f"Image features and image tokens do not match, tokens: {self.image_positions}, features: {features}"
            )

    def units(self) -> list[list[Unit]]:
        """Return the positions of each prompt as far as they change a result."""
        tokens = self.frame_tokens
        return [
            [
                (self.frames[image // tokens].digest, image % tokens) if image >= 0 else token
                for token, image in zip(ids.tolist(), images.tolist(), strict=True)
            ]
            for ids, images in zip(self.ids, self.image_rows, strict=True)
        ]

    def frames_after(self, starts: Iterable[int]) -> list[set[int]]:
        """Return which frames each prompt needs for its positions from `starts` on."""
        return [
            # Not `np.unique`: its first call imports what takes as long as a short prompt.
            set((images[start:][images[start:] >= 0] // self.frame_tokens).tolist())
            for images, start in zip(self.image_rows, starts, strict=True)
        ]

    def feature_rows(self, encoded: Sequence[int]) -> list[Int64]:
        """Return for each position the row among the image tokens of the frames `encoded`, -1 if it takes none."""
        tokens = self.frame_tokens
        first_row = np.full(len(self.frames) + 1, -1, np.int64)
        first_row[list(encoded)] = np.arange(len(encoded)) * tokens
        return [np.where(images >= 0, first_row[images // tokens] + images % tokens, -1) for images in self.image_rows]


@dataclass(frozen=True)
class Step:
    """Tokens that are appended to some sequences in one call of the Rust side.

    `ids` are those of all sequences, one after the other, `lengths` how many each gets. `feature_rows` says which row
    of `features` takes the position of a token, -1 for none; `outputs` are the positions whose result is asked for.
    """

    sequences: list[int]
    lengths: list[int]
    ids: Int64
    features: Float32
    feature_rows: Int64
    outputs: list[int]


def _without_padding(input_ids: npt.ArrayLike, attention_mask: npt.ArrayLike | None) -> list[Int64]:
    ids = np.asarray(input_ids)
    if ids.ndim != 2 or ids.shape[0] == 0 or ids.dtype.kind not in "iu":
        raise ValueError(f"input_ids has to hold integers in the shape (rows, length), got {ids.dtype} {ids.shape}.")
    ids = ids.astype(np.int64, copy=False)
    if attention_mask is None:
        return list(ids)
    mask = np.asarray(attention_mask)
    if mask.shape != ids.shape:
        raise ValueError(f"attention_mask has to be of shape {ids.shape}, as the prompts, got {mask.shape}.")
    return [row[keep != 0] for row, keep in zip(ids, mask, strict=True)]


def cut_into_steps(
    starts: Sequence[int], ends: Sequence[int], step_tokens: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Cut prompts into steps of `step_tokens` tokens at most: lists of (row, begin, end), several rows to a step."""
    pieces: list[tuple[int, int, int]] = []
    free = step_tokens
    for row, (begin, end) in enumerate(zip(starts, ends, strict=True)):
        while begin < end:
            size = min(free, end - begin)
            pieces.append((row, begin, begin + size))
            begin, free = begin + size, free - size
            if free == 0:
                yield pieces
                pieces, free = [], step_tokens
    if pieces:
        yield pieces
