"""`VideoReader`: a source in, RGB frames out; only the frames asked for are decoded and kept.

The frames are those of PyAV's plain loop over the whole file, bit for bit, converted to RGB as `color.py` says. What
differs is how few packets go through the decoder: decoding starts at the key frame before a frame asked for if that
skips enough, and pictures that no other one refers to are left out unless they are asked for. Stretches that start at
different key frames are decoded side by side. If a file is broken, or if its packets and frames are not one to one, the
reader decodes from the start and counts what comes out.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from ..quoting import shown
from .clip_container import container_options
from .clip_memory import threads_within
from .clip_probe import check_opening
from .color import FrameConverter, warn_of_color
from .kinds import MediaSource
from .policy import MediaPolicy
from .sampling import FrameSampling
from .video_file import BrokenStreamError, ShortStreamError, VideoFile
from .video_metadata import VideoMetadata
from .video_stream import VideoStream
from .webp import WebpStream, is_webp

if TYPE_CHECKING:
    import av

MAX_THREADS = 64  # more only take memory
Sampler = Callable[..., "npt.ArrayLike"]
T = TypeVar("T")


def open_stream(
    file: VideoFile, threads: int, held: int = 0, stop: threading.Event | None = None
) -> VideoStream | WebpStream:
    """Open the stream of a file; with `threads` threads if they help. Raises a `MediaError` for what is no video.

    `held` and `stop` are those of `VideoStream`.
    """
    with file.open() as data:
        if is_webp(data.read(12)):
            return WebpStream(file, held, stop)
    return VideoStream(file, threads, held, stop)


class VideoReader:
    """Metadata of a video, and the frames of it that are asked for.

    `source` is a path, URL, data URI, base64 string, bytes or a binary file; the stream that FFmpeg calls best is read,
    never an attached picture. `rotate` turns frames as the display matrix of the stream says (multiples of 90°). Pixels
    that are not square stay as they are stored, as in Transformers: the model squares every frame, so stretching it
    first would only blur it; `sample_aspect_ratio` tells their shape to whoever shows frames to people. `threads`
    bounds how many threads decode and convert.

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
        policy = policy or MediaPolicy()
        self.threads = min(threads or min(4, os.cpu_count() or 1), policy.decode_threads or MAX_THREADS)
        self.rotate = rotate
        self._converter = FrameConverter(tone_map=policy.tone_map)
        self.file = file = VideoFile.find(source, policy)
        start = time.monotonic()
        check_opening(file, container_options(file))
        with open_stream(file, threads=1) as stream:
            height, width, rate = stream.height, stream.width, stream.rate
            if width < 1 or height < 1:
                raise file.broken(
                    "has a video stream without a picture size, or with pictures larger than MediaPolicy.max_pixels or "
                    "max_clip_bytes allows"
                )
            self.form = stream.form
            self.table = stream.packet_table()
            if len(self.table.order) == 0:
                raise file.broken("has no frame that can be decoded")
            self.sample_aspect_ratio = stream.sample_aspect_ratio
            self._seconds = float(stream.time_base)
            total = len(self.table.order)
            if not self.table.exact and stream.frames > 0:
                total = min(total, stream.frames)
        self._spent = time.monotonic() - start
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
        warn_of_color(file.name, stream.transfer, stream.matrix, tone_map=policy.tone_map)

    def peak_bytes(self, frames: int) -> int:
        """Return the most bytes that decoding takes beside the encoded file, if so many RGB frames are kept."""
        return self.form.decoder_bytes(self.threads) + self.form.rgb_bytes(frames)

    @property
    def times(self) -> list[float]:
        """Seconds, from the first frame on, at which the frames are shown; right for a variable frame rate too.

        If the file has no time stamps, or none that can be true, they follow from the frame rate; raises a
        `MediaDecodeError` if that is not known either.
        """
        order = self.table.order
        pts = self.table.pts[order].astype(np.float64)
        seconds = (pts - pts[:1]) * self._seconds
        if self._can_be_true(seconds):
            return [float(second) for second in seconds]
        rate = self.metadata.fps
        if rate is None:
            raise self.file.broken(
                "has neither time stamps nor a frame rate; take its frames by number (num_frames, FrameSampling.at)"
            )
        return [index / rate for index in range(len(order))]

    def _can_be_true(self, seconds: npt.NDArray[np.float64]) -> bool:
        """Whether frames may have been shown at these seconds.

        Not if most share one (they were never set), and not if a clip that is short by its rate would last longer than
        any clip may (they are counted modulo something, or one is damaged).
        """
        if len(seconds) == 1:
            return True
        apart = 2 * len(np.unique(seconds)) > len(seconds)
        return self.table.stamped and apart and float(seconds[-1]) <= self.file.policy.max_duration

    @property
    def key_frames(self) -> list[int]:
        """Indices of the frames that the file marks as key frames."""
        return [int(index) for index in np.flatnonzero(np.isin(self.table.order, self.table.keys))]

    def sample(self, sampling: FrameSampling) -> npt.NDArray[np.int64]:
        """Return the indices of the frames that a rule takes, int64 (frames,); ValueError if it cannot be applied."""
        total = self.metadata.total_num_frames
        if sampling.keys_only and not self.key_frames:
            hides = "shows no key frame: its edit list hides them" if len(self.table.keys) else "marks no key frame"
            raise self.file.broken(f"{hides}; take its frames by number or rate (FrameSampling.uniform, at, rate)")
        times: Sequence[float] = self.times if sampling.fps is not None else range(total)
        try:
            return sampling.choose(times[:total], [index for index in self.key_frames if index < total])
        except ValueError as error:
            raise ValueError(f"{self.file.name}: {error}") from None

    def iterate(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (index, PyAV `VideoFrame`) for ascending `indices`, decoded when asked for.

        The policy's seconds count for each frame anew. Ends early if fewer frames decode than the file says.
        """
        sizes = _OneSize(self.file)
        for index, frame in self._decoded(indices):
            sizes.check(*self._upright(frame))
            yield index, frame

    def _decoded(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        file = replace(self.file, deadline=time.monotonic() + self.file.policy.max_decode_seconds)
        last = -1
        if self.table.exact:
            try:
                with VideoStream(file, self.threads) as stream:
                    stream.clock_of_each = True
                    for last, frame in stream.decode_needed(self.table, indices):
                        yield last, frame
                return
            except BrokenStreamError:
                pass
        try:
            with open_stream(file, self.threads) as stream:
                stream.clock_of_each = True
                yield from stream.decode_all([index for index in indices if index > last])
        except ShortStreamError:
            return

    def turns(self, frame: av.VideoFrame) -> int:
        """Return the quarter turns, counterclockwise, that a frame needs to stand upright; 0 unless `rotate`."""
        rotation = frame.rotation if self.rotate else 0
        return 0 if rotation % 90 else rotation // 90 % 4

    def _upright(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Return height and width of a frame after its turns."""
        return (frame.width, frame.height) if self.turns(frame) % 2 else (frame.height, frame.width)

    def to_rgb(self, frame: av.VideoFrame, side: int | None = None) -> npt.NDArray[np.uint8]:
        """Convert a PyAV `VideoFrame` to uint8 (height, width, 3), RGB.

        With `side` the frame is scaled to (side, side) on the way, which is quick, and equal to nothing else.
        """
        rgb = self._converter.to_rgb(frame, side)
        return np.ascontiguousarray(np.rot90(rgb, self.turns(frame)))

    def frames(self, sampler: Sampler) -> tuple[npt.NDArray[np.uint8], VideoMetadata]:
        """Return the frames whose indices `sampler` returns, uint8 (frames, height, width, 3), RGB; otherwise `read`.

        Each frame is written into the result when it is decoded, so that it is never held twice.
        """
        filled = _Filled()

        def remembered(metadata: VideoMetadata) -> npt.ArrayLike:
            indices = sampler(metadata=metadata)
            filled.begin(indices)
            return indices

        ranks, metadata = self.read(remembered, lambda rank, frame: filled.put(rank, self.to_rgb(frame)), keeps=True)
        return filled.in_order(ranks), metadata

    def read(
        self, sampler: Sampler, convert: Callable[[int, av.VideoFrame], T], *, keeps: bool = False
    ) -> tuple[list[T], VideoMetadata]:
        """Decode the frames whose indices `sampler(metadata=…)` returns; each goes through ``convert(rank, frame)``.

        The sampler gets a `VideoMetadata` and returns whole numbers (frames,), counted from 0, in any order and
        repeated or not. Each distinct index is decoded and converted once: `rank` is its position among the distinct
        indices in ascending order (for indices 9, 3, 9 the frame 3 has rank 0 and the frame 9 rank 1), `frame` is a
        PyAV `VideoFrame`. `convert` is called from several threads; `keeps` says that what it returns holds the pixels
        of the frame as uint8 RGB, which then count as memory.

        Returns what `convert` gave, one result for each index in the sampler's order, and the metadata, whose
        `frames_indices` are these indices. If fewer frames decode than the file promised, the sampler is asked again
        with the true number, and a warning is given. Raises ValueError for indices that are no whole numbers or lie
        outside, and a `MediaError` for a broken file, for frames of several sizes, and for more frames, seconds or
        bytes than the policy allows.
        """
        file = replace(self.file, deadline=time.monotonic() + self.file.policy.max_decode_seconds - self._spent)
        while True:
            indices = np.asarray(sampler(metadata=self.metadata))
            distinct = self._check_indices(indices)
            kept = len(distinct) + (0 if np.array_equal(indices, distinct) else len(indices))
            try:
                results = self._convert_all(file, distinct, convert, self.form.rgb_bytes(kept) if keeps else 0)
            except ShortStreamError as short:
                self._shorten(short.total)
                continue
            self.metadata.frames_indices = indices
            return [results[int(rank)] for rank in np.searchsorted(distinct, indices)], self.metadata

    def _convert_all(
        self, file: VideoFile, indices: list[int], convert: Callable[[int, av.VideoFrame], T], held: int
    ) -> dict[int, T]:
        """Return what `convert` gives for each rank; `held` are the bytes that all of it will take."""
        rank_of = {index: rank for rank, index in enumerate(indices)}
        threads = threads_within(file, self.form, self.threads, held)
        sizes, stop = _OneSize(file), threading.Event()

        def of_frame(index: int, frame: av.VideoFrame) -> T:
            size = self._upright(frame)
            sizes.check(*size)
            self.metadata.height, self.metadata.width = size
            return convert(rank_of[index], frame)

        def of_chunk(chunk: list[int], parts: int, pool: Executor | None) -> dict[int, T]:
            each = max(1, threads // parts)
            others = (parts - 1) * self.form.decoder_bytes(each)
            with VideoStream(file, each, held + others, stop) as stream:
                return _collect(stream.decode_needed(self.table, chunk), of_frame, pool, 2 * each)

        results: dict[int, T] = {}
        with ThreadPoolExecutor(threads) as pool:
            try:
                chunks = self.table.split(indices, self._parts(file, threads, held)) if self.table.exact else []
                if len(chunks) == 1:
                    results = of_chunk(indices, 1, pool)
                elif chunks:
                    for part in pool.map(lambda chunk: of_chunk(chunk, len(chunks), None), chunks):
                        results.update(part)
            except BrokenStreamError:
                stop.set()
                sizes, results = _OneSize(file), {}
            except BaseException:  # Ctrl-C too: the pool waits for its threads
                stop.set()
                raise
            if not results:
                with open_stream(file, threads, held) as stream:
                    results = _collect(stream.decode_all(indices), of_frame, pool, 2 * threads)
        return {rank_of[index]: result for index, result in results.items()}

    def _parts(self, file: VideoFile, threads: int, held: int) -> int:
        """Return how many decoders may work side by side, at most `threads`."""
        free = file.policy.max_clip_bytes - held
        return max(1, min(threads, free // self.form.decoder_bytes(1)))

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


class _OneSize:
    """Checks that the frames taken of a clip have one size."""

    def __init__(self, file: VideoFile) -> None:
        self._file = file
        self._first: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def check(self, height: int, width: int) -> None:
        """Raise a `MediaDecodeError` that names the clip if an earlier frame had another size."""
        with self._lock:
            first = self._first = self._first or (height, width)
        if first != (height, width):
            sizes = " and ".join(f"{w}×{h}" for h, w in sorted((first, (height, width))))
            raise self._file.broken(
                f"changes its picture size in mid-stream: there are frames of {sizes} pixels; take frames of one size "
                "only (FrameSampling.at), or encode the clip again"
            )


class _Filled:
    """An array that is filled with frames as they come, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: npt.NDArray[np.uint8] | None = None

    def begin(self, indices: npt.ArrayLike) -> None:
        """Expect frames of these indices; what came before counts no longer."""
        self._indices, self._frames = indices, None

    def put(self, rank: int, rgb: npt.NDArray[np.uint8]) -> int:
        """Keep a frame at its rank, which is returned; memory is taken for the first one."""
        with self._lock:
            if self._frames is None:
                self._frames = np.empty((len(np.unique(self._indices)), *rgb.shape), rgb.dtype)
            frames = self._frames
        frames[rank] = rgb
        return rank

    def in_order(self, ranks: list[int]) -> npt.NDArray[np.uint8]:
        """Return the frames at these ranks; without a copy if that is all of them as they are."""
        assert self._frames is not None
        return self._frames if ranks == list(range(len(self._frames))) else self._frames[ranks]


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
