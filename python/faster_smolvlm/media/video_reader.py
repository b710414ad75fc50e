"""`VideoReader`: a source in, RGB frames out; only the frames asked for are decoded and kept.

The frames are those of PyAV's plain loop over the whole file, bit for bit, converted to RGB as `color.py` says. What
differs is how few packets go through the decoder: decoding starts at the key frame before a frame asked for if that
skips enough, and pictures that no other one refers to are left out unless they are asked for. Stretches that start at
different key frames are decoded side by side. If a file is broken, or if its packets and frames are not one to one, the
reader decodes from the start and counts what comes out.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from ..quoting import shown
from .color import FrameConverter, warn_of_color
from .kinds import MediaSource
from .limits import check_size
from .policy import MediaPolicy
from .sampling import FrameSampling
from .video_file import BrokenStreamError, ShortStreamError, VideoFile
from .video_metadata import VideoMetadata
from .video_stream import VideoStream
from .webp import WebpStream, is_webp

if TYPE_CHECKING:
    import av

Sampler = Callable[..., "npt.ArrayLike"]
T = TypeVar("T")


def open_stream(file: VideoFile, threads: int) -> VideoStream | WebpStream:
    """Open the stream of a file; with `threads` threads if they help. Raises a `MediaError` for what is no video."""
    with file.open() as data:
        if is_webp(data.read(12)):
            return WebpStream(file)
    return VideoStream(file, threads)


class VideoReader:
    """Metadata of a video, and the frames of it that are asked for.

    `source` is a path, URL, data URI, base64 string, bytes or a binary file; its first video stream is read. `rotate`
    turns frames as the display matrix of the stream says (multiples of 90°). Pixels that are not square stay as they
    are stored, as in Transformers: the model squares every frame, so stretching it first would only blur it;
    `sample_aspect_ratio` tells their shape to whoever shows frames to people. `threads` bounds how many threads decode
    and convert.

    Pixels are those that Transformers' processors get from torchcodec, bit for bit (RGB of more than 8 bits: within 1
    of 255 levels). HDR clips (PQ, HLG) keep their stored values, so that they look pale; a warning says so, and a
    `policy` with `tone_map` converts them. Raises a `MediaError` for what is no video, is encrypted, is broken beyond
    use, or exceeds `policy`.
    """

    def __init__(
        self,
        source: MediaSource,
        *,
        policy: MediaPolicy | None = None,
        threads: int | None = None,
        rotate: bool = False,
    ) -> None:
        self.threads = threads or min(4, os.cpu_count() or 1)
        self.rotate = rotate
        self.file = file = VideoFile.find(source, policy or MediaPolicy())
        self._converter = FrameConverter(tone_map=file.policy.tone_map)
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
        warn_of_color(file.name, stream.transfer, stream.matrix, tone_map=file.policy.tone_map)

    @property
    def times(self) -> list[float]:
        """Seconds, from the first frame on, at which the frames are shown; right for a variable frame rate too."""
        pts = self.table.pts[self.table.order]
        return [float(seconds) for seconds in (pts - pts[:1]) * self._seconds]

    @property
    def key_frames(self) -> list[int]:
        """Indices of the frames that the file marks as key frames."""
        return [int(index) for index in np.flatnonzero(np.isin(self.table.order, self.table.keys))]

    def sample(self, sampling: FrameSampling) -> npt.NDArray[np.int64]:
        """Return the indices of the frames that a rule takes, int64 (frames,); ValueError if it cannot be applied."""
        total = self.metadata.total_num_frames
        try:
            return sampling.choose(self.times[:total], [index for index in self.key_frames if index < total])
        except ValueError as error:
            raise ValueError(f"{self.file.name}: {error}") from None

    def iterate(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (index, PyAV `VideoFrame`) for ascending `indices`, decoded when asked for, however long that takes.

        Ends early if fewer frames decode than the file says.
        """
        file = replace(self.file, deadline=math.inf)
        last = -1
        if self.table.exact:
            try:
                with VideoStream(file, self.threads) as stream:
                    for last, frame in stream.decode_needed(self.table, indices):
                        yield last, frame
                return
            except BrokenStreamError:
                pass
        try:
            with open_stream(file, self.threads) as stream:
                yield from stream.decode_all([index for index in indices if index > last])
        except ShortStreamError:
            return

    def turns(self, frame: av.VideoFrame) -> int:
        """Return the quarter turns, counterclockwise, that a frame needs to stand upright; 0 unless `rotate`."""
        rotation = frame.rotation if self.rotate else 0
        return 0 if rotation % 90 else rotation // 90 % 4

    def to_rgb(self, frame: av.VideoFrame, side: int | None = None) -> npt.NDArray[np.uint8]:
        """Convert a PyAV `VideoFrame` to uint8 (height, width, 3), RGB.

        With `side` the frame is scaled to (side, side) on the way, which is quick, and equal to nothing else.
        """
        rgb = self._converter.to_rgb(frame, side)
        return np.ascontiguousarray(np.rot90(rgb, self.turns(frame)))

    def read(self, sampler: Sampler, convert: Callable[[int, av.VideoFrame], T]) -> tuple[list[T], VideoMetadata]:
        """Decode the frames whose indices `sampler(metadata=…)` returns; each goes through ``convert(rank, frame)``.

        The sampler gets a `VideoMetadata` and returns whole numbers (frames,), counted from 0, in any order and
        repeated or not. Each distinct index is decoded and converted once: `rank` is its position among the distinct
        indices in ascending order (for indices 9, 3, 9 the frame 3 has rank 0 and the frame 9 rank 1), `frame` is a
        PyAV `VideoFrame`. `convert` is called from several threads.

        Returns what `convert` gave, one result for each index in the sampler's order, and the metadata, whose
        `frames_indices` are these indices. If fewer frames decode than the file promised, the sampler is asked again
        with the true number, and a warning is given. Raises ValueError for indices that are no whole numbers or lie
        outside, and a `MediaError` for a broken file and for more frames or seconds than the policy allows.
        """
        while True:
            indices = np.asarray(sampler(metadata=self.metadata))
            distinct = self._check_indices(indices)
            try:
                results = self._convert_all(distinct, convert)
            except ShortStreamError as short:
                self._shorten(short.total)
                continue
            self.metadata.frames_indices = indices
            return [results[int(rank)] for rank in np.searchsorted(distinct, indices)], self.metadata

    def _convert_all(self, indices: list[int], convert: Callable[[int, av.VideoFrame], T]) -> dict[int, T]:
        rank_of = {index: rank for rank, index in enumerate(indices)}

        def of_frame(index: int, frame: av.VideoFrame) -> T:
            if self.turns(frame) % 2:
                self.metadata.height, self.metadata.width = frame.width, frame.height
            return convert(rank_of[index], frame)

        def of_chunk(chunk: list[int], threads: int, pool: Executor | None) -> dict[int, T]:
            with VideoStream(self.file, threads) as stream:
                return _collect(stream.decode_needed(self.table, chunk), of_frame, pool, 2 * threads)

        results: dict[int, T] = {}
        with ThreadPoolExecutor(self.threads) as pool:
            chunks = self.table.split(indices, self.threads) if self.table.exact else []
            try:
                if len(chunks) == 1:
                    results = of_chunk(indices, self.threads, pool)
                elif chunks:
                    each = max(1, self.threads // len(chunks))
                    for part in pool.map(lambda chunk: of_chunk(chunk, each, None), chunks):
                        results.update(part)
            except BrokenStreamError:
                results = {}
            if not results:
                with open_stream(self.file, self.threads) as stream:
                    results = _collect(stream.decode_all(indices), of_frame, pool, 2 * self.threads)
        return {rank_of[index]: result for index, result in results.items()}

    def _check_indices(self, indices: npt.NDArray[np.generic]) -> list[int]:
        """Return the distinct indices, ascending."""
        file, total = self.file, self.metadata.total_num_frames
        if indices.ndim != 1 or len(indices) == 0 or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(f"{file.name}: a sampler must return a list of frame indices, got {shown(indices)}")
        if len(indices) > file.policy.max_frames:
            raise file.limit(f"would give {len(indices)} frames (sample fewer by num_frames or fps)", "max_frames")
        distinct = [int(index) for index in np.unique(indices)]
        first, last = distinct[0], distinct[-1]
        if first < 0 or last >= total:
            raise ValueError(f"{file.name}: frame indices must lie in 0…{total - 1}, got {first}…{last}")
        return distinct

    def _shorten(self, total: int) -> None:
        """Believe the decoder, not the container."""
        if total == 0:
            raise self.file.broken("has no frame that can be decoded")
        promised = self.metadata.total_num_frames
        warnings.warn(f"{self.file.name}: {total} of {promised} frames can be decoded; only those count", stacklevel=4)
        self.metadata.total_num_frames = total
        if self.metadata.fps:
            self.metadata.duration = total / self.metadata.fps


def _collect(
    frames: Iterator[tuple[int, av.VideoFrame]],
    convert: Callable[[int, av.VideoFrame], T],
    pool: Executor | None,
    capacity: int,
) -> dict[int, T]:
    """Convert frames, in `pool` if there is one; at most `capacity` of them wait, so that memory stays bounded."""
    if pool is None:
        return {index: convert(index, frame) for index, frame in frames}
    results: dict[int, T] = {}
    pending: dict[int, Future[T]] = {}
    try:
        for index, frame in frames:
            pending[index] = pool.submit(convert, index, frame)
            if len(pending) > capacity:
                oldest = next(iter(pending))
                results[oldest] = pending.pop(oldest).result()
    finally:
        wait(pending.values())  # none may write after an error
    results.update((index, future.result()) for index, future in pending.items())
    return results
