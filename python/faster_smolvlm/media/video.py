"""Videos: a path, bytes or an open file in, RGB frames out; only the frames asked for are decoded and kept.

The frames are those of PyAV's plain loop over the whole file, converted to ``rgb24``, bit for bit. What differs is how
few packets go through the decoder: decoding starts at the key frame before a wanted frame where that skips enough, and
pictures that no other one refers to are left out unless they are wanted. Stretches that start at different key frames
are decoded side by side. Where a file is broken, or where its packets and frames are not one to one, the reader decodes
from the start and counts what comes out.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .. import _rust
from .image import check_size
from .policy import MediaPolicy
from .sampling import FrameSampling
from .video_metadata import VideoMetadata
from .video_stream import BrokenStreamError, ShortStreamError, VideoFile, VideoSource, VideoStream, open_stream

Sampler = Callable[..., Any]
T = TypeVar("T")


class VideoReader:
    """Metadata of a video, and the frames of it that are asked for.

    `source` is a path, URL, data URI, bytes or a binary file; its first video stream is read. `rotate` turns frames as
    the display matrix of the stream says (multiples of 90°). Pixels that are not square stay as they are stored, as in
    Transformers: the model squares every frame, so stretching it first would only blur it; `sample_aspect_ratio` tells
    their shape to whoever shows frames to people. `threads` bounds how many threads decode and convert. Raises a
    `MediaError` for what is no video, is encrypted, is broken beyond use, or exceeds `policy`.
    """

    def __init__(
        self,
        source: VideoSource,
        *,
        policy: MediaPolicy | None = None,
        threads: int | None = None,
        rotate: bool = False,
    ) -> None:
        self.threads = threads or min(4, os.cpu_count() or 1)
        self.rotate = rotate
        self._of_thread = threading.local()
        self.file = file = VideoFile.find(source, policy or MediaPolicy())
        with open_stream(file, threads=1) as stream:
            height, width, rate = stream.height, stream.width, stream.rate
            if width < 1 or height < 1:
                raise file.broken("has a video stream without a picture size")
            check_size(height, width, file.name, file.policy)
            self.table = stream.packet_table()
            if len(self.table.order) == 0:
                raise file.broken("has no frame that can be decoded")
            self.sample_aspect_ratio = stream.sample_aspect_ratio
            self._seconds = float(stream.time_base)
            total = len(self.table.order)
            if not self.table.exact and stream.frames > 0:
                total = min(total, stream.frames)
        self.metadata = VideoMetadata(
            total_num_frames=total,
            fps=float(rate) if rate else None,
            duration=float(total / rate) if rate else None,
            video_backend=stream.backend,
            height=height,
            width=width,
        )
        if self.metadata.duration is not None and self.metadata.duration > file.policy.max_duration:
            raise file.limit(f"lasts {self.metadata.duration:.0f} seconds", "max_duration")

    @property
    def times(self) -> list[float]:
        """Seconds, from the first frame on, at which the frames are shown; right for a variable frame rate too."""
        pts = self.table.pts[self.table.order]
        return [float(seconds) for seconds in (pts - pts[:1]) * self._seconds]

    @property
    def key_frames(self) -> list[int]:
        """Indices of the frames that the file marks as key frames."""
        return [int(index) for index in np.flatnonzero(np.isin(self.table.order, self.table.keys))]

    def sample(self, sampling: FrameSampling) -> np.ndarray[Any, Any]:
        """Return the indices of the frames that a rule takes; ValueError where it cannot be applied."""
        total = self.metadata.total_num_frames
        try:
            return sampling.choose(self.times[:total], [index for index in self.key_frames if index < total])
        except ValueError as error:
            raise ValueError(f"{self.file.name}: {error}") from None

    def iterate(self, wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """Yield (index, PyAV `VideoFrame`) for ascending indices, decoded when asked for, however long that takes.

        Ends where fewer frames decode than the file says.
        """
        file = replace(self.file, deadline=math.inf)
        last = -1
        if self.table.exact:
            try:
                with VideoStream(file, self.threads) as stream:
                    for last, frame in stream.decode_needed(self.table, wanted):
                        yield last, frame
                return
            except BrokenStreamError:
                pass
        try:
            with open_stream(file, self.threads) as stream:
                yield from stream.decode_all([index for index in wanted if index > last])
        except ShortStreamError:
            return

    def turns(self, frame: Any) -> int:
        """Return the quarter turns, counterclockwise, that a frame needs to stand upright; 0 unless `rotate`."""
        rotation = frame.rotation if self.rotate else 0
        return 0 if rotation % 90 else rotation // 90 % 4

    def _reformat(self, frame: Any, **target: Any) -> Any:
        """Convert a PyAV `VideoFrame` as its own `reformat` does, but fit for several threads."""
        from av.video.reformatter import VideoReformatter

        # The frames of one decoder share one converter, which two threads must not use at once.
        if not hasattr(self._of_thread, "reformatter"):
            self._of_thread.reformatter = VideoReformatter()
        return self._of_thread.reformatter.reformat(frame, **target)

    def to_rgb(self, frame: Any, side: int | None = None) -> np.ndarray[Any, Any]:
        """Convert a PyAV `VideoFrame` to uint8 (height, width, 3), RGB.

        With `side` the frame is scaled to (side, side) on the way, which is quick, and equal to nothing else.
        """
        size = {} if side is None else {"width": side, "height": side, "interpolation": "AREA"}
        rgb: np.ndarray[Any, Any] = self._reformat(frame, format="rgb24", **size).to_ndarray()
        turns = self.turns(frame)
        return np.ascontiguousarray(np.rot90(rgb, turns))

    def read(self, sampler: Sampler, convert: Callable[[int, Any], T]) -> tuple[list[T], VideoMetadata]:
        """Decode the frames whose indices `sampler(metadata=…)` returns; each goes through ``convert(rank, frame)``.

        `rank` counts the distinct indices, ascending; `frame` is a PyAV `VideoFrame`. `convert` is called from several
        threads. The results come back in the order of the indices, which may repeat. Where fewer frames decode than
        the file says, the sampler is asked again with the true number, and a warning is given.
        """
        while True:
            indices = np.asarray(sampler(metadata=self.metadata))
            wanted = self._check_indices(indices)
            try:
                results = self._convert_all(wanted, convert)
            except ShortStreamError as short:
                self._shorten(short.total)
                continue
            self.metadata.frames_indices = indices
            return [results[int(rank)] for rank in np.searchsorted(wanted, indices)], self.metadata

    def _convert_all(self, wanted: list[int], convert: Callable[[int, Any], T]) -> dict[int, T]:
        rank_of = {index: rank for rank, index in enumerate(wanted)}

        def of_frame(index: int, frame: Any) -> T:
            if self.turns(frame) % 2:
                self.metadata.height, self.metadata.width = frame.width, frame.height
            return convert(rank_of[index], frame)

        def of_chunk(chunk: list[int], threads: int, pool: Executor | None) -> dict[int, T]:
            with VideoStream(self.file, threads) as stream:
                return _collect(stream.decode_needed(self.table, chunk), of_frame, pool, 2 * threads)

        results: dict[int, T] = {}
        with ThreadPoolExecutor(self.threads) as pool:
            chunks = self.table.split(wanted, self.threads) if self.table.exact else []
            try:
                if len(chunks) == 1:
                    results = of_chunk(wanted, self.threads, pool)
                elif chunks:
                    each = max(1, self.threads // len(chunks))
                    for part in pool.map(lambda chunk: of_chunk(chunk, each, None), chunks):
                        results.update(part)
            except BrokenStreamError:
                results = {}
            if not results:
                with open_stream(self.file, self.threads) as stream:
                    results = _collect(stream.decode_all(wanted), of_frame, pool, 2 * self.threads)
        return {rank_of[index]: result for index, result in results.items()}

    def _check_indices(self, indices: np.ndarray[Any, Any]) -> list[int]:
        """Return the distinct indices, ascending."""
        file, total = self.file, self.metadata.total_num_frames
        if indices.ndim != 1 or len(indices) == 0 or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(f"{file.name}: a sampler must return a list of frame indices, got {indices!r}")
        if len(indices) > file.policy.max_frames:
            raise file.limit(f"would give {len(indices)} frames (sample fewer by num_frames or fps)", "max_frames")
        wanted = np.unique(indices)
        if wanted[0] < 0 or wanted[-1] >= total:
            raise ValueError(f"{file.name}: frame indices must lie in 0…{total - 1}, got {wanted[0]}…{wanted[-1]}")
        return [int(index) for index in wanted]

    def _shorten(self, total: int) -> None:
        """Believe the decoder, not the container."""
        if total == 0:
            raise self.file.broken("has no frame that can be decoded")
        said = self.metadata.total_num_frames
        warnings.warn(f"{self.file.name}: {total} of {said} frames can be decoded; only those count", stacklevel=4)
        self.metadata.total_num_frames = total
        if self.metadata.fps:
            self.metadata.duration = total / self.metadata.fps


def _collect(
    frames: Iterator[tuple[int, Any]], convert: Callable[[int, Any], T], pool: Executor | None, ahead: int
) -> dict[int, T]:
    """Convert frames, in `pool` where there is one; at most `ahead` of them wait, so that memory stays bounded."""
    if pool is None:
        return {index: convert(index, frame) for index, frame in frames}
    results: dict[int, T] = {}
    pending: dict[int, Future[T]] = {}
    try:
        for index, frame in frames:
            pending[index] = pool.submit(convert, index, frame)
            if len(pending) > ahead:
                oldest = next(iter(pending))
                results[oldest] = pending.pop(oldest).result()
    finally:
        wait(pending.values())  # none may write after an error
    results.update((index, future.result()) for index, future in pending.items())
    return results


def load_video(
    video: VideoSource,
    num_frames: int | None = None,
    fps: float | None = None,
    sample_indices_fn: Sampler | None = None,
    *,
    sampling: FrameSampling | None = None,
    policy: MediaPolicy | None = None,
    threads: int | None = None,
    rotate: bool = False,
    **kwargs: Any,
) -> tuple[np.ndarray[Any, Any], VideoMetadata]:
    """Read a video, or the frames of it that are asked for.

    `num_frames` frames at equal distance, `fps` frames per second, those whose indices
    ``sample_indices_fn(metadata=VideoMetadata, **kwargs)`` returns, or those that `sampling` takes; without any of them
    every frame. Returns uint8 frames (frames, height, width, 3), RGB, and the `VideoMetadata`. Raises ValueError where
    several are given or more frames are asked for than there are, and a `MediaError` as `VideoReader`.
    """
    given = [num_frames is not None, fps is not None, sampling is not None]
    if sum(given) > 1 and sample_indices_fn is None:
        raise ValueError(
            "`num_frames`, `fps`, `sample_indices_fn` and `sampling` are mutually exclusive arguments, please use "
            "only one!"
        )
    reader = VideoReader(video, policy=policy, threads=threads, rotate=rotate)
    if sample_indices_fn is None and sampling is not None:
        sampler: Sampler = lambda metadata: reader.sample(sampling)  # noqa: E731
    else:
        sampler = partial(
            sample_indices_fn or partial(default_sample_indices_fn, num_frames=num_frames, fps=fps), **kwargs
        )
    frames, metadata = reader.read(sampler, lambda _, frame: reader.to_rgb(frame))
    return np.stack(frames), metadata


def default_sample_indices_fn(
    metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **unused: Any
) -> np.ndarray[Any, Any]:
    """Return the indices of `num_frames` frames at equal distance, of `fps` frames per second, or of every frame."""
    total = metadata.total_num_frames
    if num_frames is not None:
        return np.array(_rust.uniform_frames(total, num_frames), dtype=np.int64)
    if fps is None:
        return np.arange(total)
    if metadata.fps is None:
        raise ValueError(
            f"Asked for fps={fps} frames per second, but the frame rate of the video is unknown; pass num_frames=…"
        )
    return np.array(_rust.frames_at_rate(total, metadata.fps, fps), dtype=np.int64)
