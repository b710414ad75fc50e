"""`VideoMetadata`: what is known of a clip and of the frames taken from it, as in Transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class VideoMetadata(Mapping[str, Any]):
    """A clip's length and rate, and the indices of the frames taken; a mapping whose keys are attributes too.

    `total_num_frames` counts the frames of the clip, `fps` is their average rate in frames per second, `duration` the
    length in seconds, `width` and `height` are in pixels; `frames_indices` are the positions of the frames taken,
    counted from 0 in the order in which frames are shown. `video_backend` names the decoder ("pyav", "pillow"). None
    stands for what is not known.
    """

    total_num_frames: int
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    video_backend: str | None = None
    frames_indices: Sequence[int] | npt.NDArray[np.int64] | None = None

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in fields(self))

    def __len__(self) -> int:
        return len(fields(self))

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __setitem__(self, key: str, value: object) -> None:
        setattr(self, key, value)

    @property
    def timestamps(self) -> list[float]:
        """Seconds at which the frames are shown in a clip of constant rate: index over `fps`.

        Raises ValueError if `fps` or `frames_indices` is unknown.
        """
        if self.fps is None or self.frames_indices is None:
            raise ValueError("Cannot infer video `timestamps` when `fps` or `frames_indices` is None.")
        return [index / self.fps for index in self.frames_indices]

    @property
    def sampled_fps(self) -> float:
        """Frames per second of the frames taken; 24 if nothing is known."""
        if self.frames_indices is None or self.total_num_frames is None or self.fps is None:
            return self.fps or 24
        return len(self.frames_indices) / self.total_num_frames * self.fps

    def update(self, values: Mapping[str, object]) -> None:
        """Set the attributes that `values` names; names that are no attribute are ignored."""
        for key, value in values.items():
            if hasattr(self, key):
                setattr(self, key, value)
