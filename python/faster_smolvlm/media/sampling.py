"""`FrameSampling`: which frames of a clip to take, of a file or of a stream whose length nobody knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .. import _rust
from ..integers import as_float, as_int
from ..quoting import shown
from .video_metadata import VideoMetadata

T = TypeVar("T")
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class FrameSampling:
    """A rule for choosing frames, in place of the model's own; made by `uniform`, `rate`, `at` or `key_frames`.

    A file is read as the rule says. For a source that has no known length, `collect` keeps fewer than
    ``2 * max_frames`` frames while they arrive, so an endless one can be cut off at any time; what it keeps lies
    evenly over what has been seen, each frame at most a stride away from the one that the rule would take.
    """

    max_frames: int
    """The most frames that are taken."""
    fps: float | None = None
    """Frames a second, by the times at which they are shown."""
    indices: tuple[int, ...] | None = None
    """Frames by number, from 0; negative ones count from the end."""
    keys_only: bool = False
    """Whether only key frames are taken."""

    @classmethod
    def uniform(cls, max_frames: int) -> FrameSampling:
        """Take `max_frames` frames at equal distance, or all if there are fewer."""
        return cls(_positive("max_frames", as_int(max_frames), max_frames))

    @classmethod
    def rate(cls, fps: float, max_frames: int = 64) -> FrameSampling:
        """Take what is on the screen `fps` times a second, by time stamps; at most `max_frames`, spread evenly."""
        most = _positive("max_frames", as_int(max_frames), max_frames)
        return cls(most, fps=_positive("fps", as_float(fps), fps))

    @classmethod
    def at(cls, indices: Sequence[int]) -> FrameSampling:
        """Take these frames, counted from 0; negative ones from the end, which only a known length has."""
        if len(indices) == 0:
            raise ValueError("FrameSampling.at needs one frame index or more")
        return cls(len(indices), indices=tuple(int(index) for index in indices))

    @classmethod
    def key_frames(cls, max_frames: int = 64) -> FrameSampling:
        """Take key frames, which decode quickest; at most `max_frames`, spread evenly over them."""
        return cls(_positive("max_frames", as_int(max_frames), max_frames), keys_only=True)

    def choose(self, times: Sequence[float], key_frames: Sequence[int] | None = None) -> npt.NDArray[np.int64]:
        """Return ascending frame indices, int64, for frames shown at `times` (ascending seconds).

        Raises ValueError for an index outside, if there is no frame, and if key frames are asked for but not known.
        """
        if self.indices is not None:
            chosen = _rust.explicit_frames(len(times), self.indices)
        elif self.keys_only:
            if not key_frames:
                raise ValueError("key frames were asked for, but which frames are key frames is not known")
            chosen = _rust.key_frames(key_frames, self.max_frames)
        elif self.fps is not None:
            chosen = _rust.key_frames(_rust.frames_at_times(times, self.fps), self.max_frames)
        else:
            chosen = _rust.uniform_frames(len(times), min(self.max_frames, len(times)))
        return np.array(chosen, dtype=np.int64)

    def collect(self, frames: Iterable[tuple[float, T] | tuple[float, T, bool]]) -> tuple[list[T], VideoMetadata]:
        """Take frames of a source of unknown length until it ends.

        `frames` are (seconds, frame), or (seconds, frame, is_key) as `key_frames` needs it; a frame may be anything.
        Returns the frames taken and their `VideoMetadata`, whose `fps` is the mean rate of what has been seen. Raises
        ValueError for an empty source, and for an index beyond its end.
        """
        if self.indices is not None and min(self.indices) < 0:
            raise ValueError(f"{min(self.indices)} counts from the end, which a source of unknown length does not tell")
        stream = _rust.FrameStream(self.max_frames, fps=self.fps, indices=self.indices, keys_only=self.keys_only)
        held: dict[int, T] = {}
        first = last = 0.0
        total = 0
        for seconds, frame, *key in frames:
            if self.keys_only and not key:
                raise ValueError("key frames were asked for, so the source has to give (seconds, frame, is_key)")
            keep, released = stream.offer(seconds, bool(key and key[0]))
            for index in released:
                del held[index]
            if keep:
                held[total] = frame
            first, last = (seconds if total == 0 else first), seconds
            total += 1
        indices = np.array(stream.finish(), dtype=np.int64)
        fps = (total - 1) / (last - first) if last > first else None
        metadata = VideoMetadata(total, fps=fps, duration=total / fps if fps else None, frames_indices=indices)
        return [held[index] for index in indices.tolist()], metadata


def _positive(name: str, value: N | None, given: object) -> N:
    if value is None or not value > 0:
        kind = "an integer" if name == "max_frames" else "a number"
        raise ValueError(f"{name} has to be {kind} above 0, got {shown(given)}")
    return value
