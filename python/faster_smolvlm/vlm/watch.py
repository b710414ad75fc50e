"""Streaming video: one question again and again over the last frames of a source that may never end."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from .. import _rust
from ..integers import as_float, as_int
from ..media import MediaPolicy
from ..media.kinds import is_source
from ..media.video import VideoReader
from ..quoting import shown
from ..text.placeholders import Clip
from .answers import Observation, Result

if TYPE_CHECKING:
    from ..media.kinds import AnyArray, MediaSource

# They are about pictures and about prompts that begin as an earlier one; a window has neither.
_WITHOUT_EFFECT = ("do_image_splitting", "reuse")


class Watcher(Protocol):
    """What watching needs of `SmolVLM`."""

    policy: MediaPolicy

    def encode_frame(self, frame: object) -> AnyArray:
        """Return the image tokens (tokens, hidden_size) of one frame of a clip."""

    def answer_encoded(
        self, prompt: str, clip: Clip, features: Sequence[AnyArray], sampling: Mapping[str, object]
    ) -> Result:
        """Answer a prompt about one clip whose frames are encoded already: one of `features` for each."""


class _Timed(NamedTuple):
    """A frame and when it was taken: seconds from the start of its source."""

    seconds: float
    frame: object


def watch(
    vlm: Watcher,
    source: object,
    *,
    prompt: str,
    every: float = 2.0,
    window: int = 8,
    **options: object,
) -> Iterator[Observation]:
    """Yield the answer to `prompt` about the last `window` frames, each time `every` seconds of the source have passed.

    See `SmolVLM.watch`.
    """
    seconds, frames = as_float(every), as_int(window)
    if seconds is None or not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"every has to be a number of seconds above 0, got {shown(every)}")
    if frames is None or frames < 1:
        raise ValueError(f"window has to be 1 frame or more, got {shown(window)}")
    unread = [name for name in _WITHOUT_EFFECT if name in options]
    if unread:
        raise TypeError(f"watch() has no {shown(unread[0])}: it shows whole frames, and keeps what is in the window")
    timed = (
        frames_of_file(source, seconds, vlm.policy) if is_source(source) else _timed(cast("Iterable[object]", source))
    )
    return _observe(vlm, _spaced(timed, seconds), prompt, frames, options)


def frames_of_file(
    source: MediaSource, every: float, policy: MediaPolicy | None = None
) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Yield (seconds, uint8 (height, width, 3)) of a video file, one each `every` seconds, decoded when asked for."""
    reader = VideoReader(source, policy=policy, rotate=True)
    times = reader.times
    for index, frame in reader.iterate(_rust.frames_at_times(times, 1 / every)):
        yield times[index], reader.to_rgb(frame)


def _timed(source: Iterable[object]) -> Iterator[tuple[float, object]]:
    """Give every frame the time at which it arrives, unless the source says one."""
    start = time.monotonic()
    for item in source:
        yield item if isinstance(item, tuple) else (time.monotonic() - start, item)


def _spaced(frames: Iterable[tuple[float, object]], every: float) -> Iterator[_Timed]:
    """Pass on a frame for each `every` seconds; those missed in a gap are not made up for."""
    start: float | None = None
    ticks = 0
    for seconds, frame in frames:
        start = seconds if start is None else start
        passed = math.floor((seconds - start) / every + 1e-6)
        if passed >= ticks:
            ticks = passed + 1
            yield _Timed(seconds, frame)


def _observe(
    vlm: Watcher, frames: Iterator[_Timed], prompt: str, window: int, options: Mapping[str, object]
) -> Iterator[Observation]:
    kept: deque[tuple[float, AnyArray]] = deque(maxlen=window)
    for seconds, frame in frames:
        kept.append((seconds, vlm.encode_frame(frame)))
        times = [taken for taken, _ in kept]
        # Times count from the first frame of the window: the prompt looks the same however long the source runs.
        stamps = [round(1000 * (taken - times[0])) for taken in times]
        clip = Clip(fps=1000.0, duration=stamps[-1] / 1000, frames_indices=stamps, padded_frames=len(stamps))
        yield Observation(times, vlm.answer_encoded(prompt, clip, [features for _, features in kept], options))
