"""Streaming video: one question again and again over the last frames of a source that may never end."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _rust
from ..media import MediaPolicy, load_image
from ..media.kinds import is_source
from ..media.video import VideoReader
from ..text.placeholders import Clip

if TYPE_CHECKING:
    from .answers import Result
    from .smolvlm import SmolVLM


@dataclass(frozen=True)
class Observation:
    """An answer about the frames at `times`, seconds from the start of the source; the last one is new."""

    times: list[float]
    result: Result

    @property
    def text(self) -> str:
        """What the model says."""
        return self.result.text


def watch(
    vlm: SmolVLM,
    source: Any,
    *,
    prompt: str,
    every: float = 2.0,
    window: int = 8,
    max_new_tokens: int = 64,
    **sampling: Any,
) -> Iterator[Observation]:
    """Yield the answer to `prompt` about the last `window` frames, each time `every` seconds of the source have passed.

    See `SmolVLM.watch`.
    """
    if not (math.isfinite(every) and every > 0):
        raise ValueError(f"every has to be a number of seconds above 0, got {every}")
    if window < 1:
        raise ValueError(f"window has to be 1 frame or more, got {window}")
    timed = frames_of_file(source, every, vlm.policy) if is_source(source) else _timed(source)
    return _observe(vlm, _spaced(timed, every), prompt, window, {"max_new_tokens": max_new_tokens, **sampling})


def frames_of_file(source: Any, every: float, policy: MediaPolicy | None = None) -> Iterator[tuple[float, Any]]:
    """Yield (seconds, uint8 (height, width, 3)) of a video file, one each `every` seconds, decoded when asked for."""
    reader = VideoReader(source, policy=policy, rotate=True)
    times = reader.times
    for index, frame in reader.iterate(_rust.frames_at_times(times, 1 / every)):
        yield times[index], reader.to_rgb(frame)


def _timed(source: Iterable[Any]) -> Iterator[tuple[float, Any]]:
    """Give every frame the time at which it arrives, where the source does not say."""
    start = time.monotonic()
    for item in source:
        yield item if isinstance(item, tuple) else (time.monotonic() - start, item)


def _spaced(frames: Iterable[tuple[float, Any]], every: float) -> Iterator[tuple[float, Any]]:
    """Pass on a frame for each `every` seconds; those missed in a gap are not made up for."""
    start: float | None = None
    ticks = 0
    for seconds, frame in frames:
        start = seconds if start is None else start
        passed = math.floor((seconds - start) / every + 1e-6)
        if passed >= ticks:
            ticks = passed + 1
            yield seconds, frame


def _observe(
    vlm: SmolVLM, frames: Iterator[tuple[float, Any]], prompt: str, window: int, sampling: dict[str, Any]
) -> Iterator[Observation]:
    kept: deque[tuple[float, Any]] = deque(maxlen=window)
    for seconds, frame in frames:
        clip_of_one = np.asarray(load_image(frame, vlm.policy))[None]
        to_pixels = vlm.processor.require_video_processor()
        pixels = to_pixels(clip_of_one, do_sample_frames=False, return_tensors=vlm.tensors)
        kept.append((seconds, vlm.encode(pixels["pixel_values"])))
        times = [time for time, _ in kept]
        # Times count from the first frame of the window: the prompt looks the same however long the source runs.
        shown = [round(1000 * (time - times[0])) for time in times]
        clip = Clip(fps=1000.0, duration=shown[-1] / 1000, frames_indices=shown, padded_frames=len(shown))
        yield Observation(times, vlm.answer_encoded(prompt, clip, [part for _, part in kept], sampling))
