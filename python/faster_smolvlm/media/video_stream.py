"""One opened video stream: its packets, and the frames decoded from them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from .clip_container import clip_stream, decoder_options, open_container
from .clip_memory import PictureForm, check_held, threads_within
from .limits import check_size
from .packets import (
    JUMP_PACKETS,
    MOST_UNITS,
    SEEK_PACKETS,
    PacketTable,
    has_too_many_units,
    read_table,
    skippable,
)
from .video_file import BrokenStreamError, ShortStreamError, StoppedError, VideoFile

if TYPE_CHECKING:
    import av

_RAW = 8  # bytes of a pixel in the largest raw format: a packet of more is no picture
_EXTRAS = 1 << 20  # bytes of a packet beside its picture: colour profiles, messages


class VideoStream:
    """The video stream of a file, decoded by `threads` threads; close it, or use it in a `with` statement.

    `held` are the bytes of frames that the caller keeps meanwhile. Setting `stop` ends reading with `StoppedError`.
    """

    backend = "pyav"
    clock_of_each = False
    """Whether the deadline begins anew with each frame asked for; otherwise only time at the caller is added."""

    def __init__(self, file: VideoFile, threads: int, held: int = 0, stop: threading.Event | None = None) -> None:
        self._file, self._held, self._stop = file, held, stop
        self._deadline = file.deadline
        self._container = open_container(file)
        try:
            self._set_up(clip_stream(self._container, file), threads)
        except BaseException:
            self._container.close()
            raise

    def _set_up(self, stream: av.VideoStream, threads: int) -> None:
        import av

        self.stream = stream
        if hasattr(av.stream, "Discard"):  # newer PyAV can leave the other streams unread
            for other in self._container.streams:
                if other is not stream:
                    other.discard = av.stream.Discard.all
        context = stream.codec_context
        self.height: int = context.height
        self.width: int = context.width
        check_size(self.height, self.width, self._file.name, self._file.policy)
        self.codec: str = context.name
        self._form = self.form = PictureForm.of(self.codec, self.height, self.width, context.format)
        self._threads = threads_within(self._file, self.form, threads, self._held)
        context.options = decoder_options(self._file)
        context.thread_count = self._threads
        context.thread_type = "AUTO"
        # codes of ITU-T H.273; 2 if the file does not say
        self.transfer: int = int(context.color_trc)
        self.matrix: int = int(context.colorspace)
        # width over height of a pixel; 1 if the file does not say
        ratio = stream.sample_aspect_ratio
        self.sample_aspect_ratio = Fraction(ratio if ratio and ratio > 0 else 1)
        self.time_base: Fraction = stream.time_base or Fraction(0)
        self.frames: int = stream.frames  # 0 if the container does not say
        rate: Fraction | None = stream.average_rate or stream.guessed_rate
        self.rate = rate if rate and rate > 0 else None

    def __enter__(self) -> VideoStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def packet_table(self) -> PacketTable:
        """Read every packet; the stream is at its end afterwards."""
        context = self.stream.codec_context
        return read_table(self._packets(), context.name, context.extradata)

    def decode_needed(self, table: PacketTable, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (index, PyAV frame) for ascending `indices`, sending only the packets that those frames need.

        Raises `BrokenStreamError` if a frame does not come out. The stream must have been opened just before.
        """
        context = self.stream.codec_context
        index_of = {int(table.pts[packet]): index for index, packet in zip(indices, table.order[indices], strict=True)}
        needed = set(table.order[indices].tolist())
        is_skippable = skippable(context.name, context.extradata)
        packets = self._packets()

        def asked_for(frames: list[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
            for frame in frames:
                index = index_of.pop(frame.pts, None)
                if index is not None:
                    yield from self._hand_out(index, frame)

        # The first packet may tell which encoder wrote the stream, and the decoder minds that encoder's faults.
        yield from asked_for(self._decode(next(packets, None)))
        position = 1  # the packet that comes next
        for start, targets in table.groups(indices):
            from_reset = start - position > JUMP_PACKETS
            if from_reset:
                yield from asked_for(self._decode(None))
                context.flush_buffers()
                if start - position > SEEK_PACKETS:
                    packets, position = self._seek(table, start)
            while position <= max(targets) and index_of:
                packet = next(packets, None)
                if packet is None:
                    break
                leading = from_reset and (position < start or table.pts[position] < table.pts[start])
                if not leading and (position in needed or not is_skippable(packet)):
                    yield from asked_for(self._decode(packet))
                position += 1
            if not index_of:
                return
        yield from asked_for(self._decode(None))
        if index_of:
            raise BrokenStreamError

    def decode_all(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (index, PyAV frame) for ascending `indices`, decoding from the start and counting what comes out.

        Packets that do not decode are passed over. Raises `ShortStreamError` if fewer frames come out.
        """
        remaining = set(indices)
        index = 0
        packets = self._packets()
        while True:
            packet = next(packets, None)
            try:
                frames = self._decode(packet)
            except BrokenStreamError:
                frames = []
            for frame in frames:
                if index in remaining:
                    remaining.remove(index)
                    yield from self._hand_out(index, frame)
                index += 1
            if not remaining:
                return
            if packet is None:
                raise ShortStreamError(index)

    def _seek(self, table: PacketTable, start: int) -> tuple[Iterator[av.Packet], int]:
        """Move to the packet `start` or shortly before it; returns the packets from there, and the first's position."""
        try:
            self._container.seek(int(table.pts[start]), stream=self.stream)
        except Exception as error:  # PyAV raises anything
            raise BrokenStreamError from error
        packets = self._packets()
        first = next(packets, None)
        found = np.flatnonzero(table.pts == first.pts) if first is not None else np.array([], dtype=np.int64)
        if len(found) != 1 or found[0] > start:
            raise BrokenStreamError

        def from_first() -> Iterator[av.Packet]:
            yield first
            yield from packets

        return from_first(), int(found[0])

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """Return the frames that come out for a packet, or those still inside for None.

        Raises `BrokenStreamError` if it does not decode, and a `MediaError` for pictures that are larger than allowed.
        """
        file, context = self._file, self.stream.codec_context
        if packet is not None and packet.size > _RAW * self.form.height * self.form.width + _EXTRAS:
            raise file.broken(f"holds a picture of {packet.size} bytes, more than its pixels")
        if packet is not None and has_too_many_units(self.codec, context.extradata, packet):
            raise file.broken(f"holds a picture of more than {MOST_UNITS} units")
        failure: Exception | None = None
        try:
            frames: list[av.VideoFrame] = context.decode(packet)
        except MemoryError:
            raise file.broken("needs more memory to be decoded than there is") from None
        except Exception as error:  # PyAV raises anything
            frames, failure = [], error
        # What the decoder has refused to take memory for is above the limit too, and no frame tells.
        check_size(context.height, context.width, file.name, file.policy)
        for frame in frames:
            form = PictureForm.of(self.codec, frame.height, frame.width, frame.format)
            if form != self._form:
                check_size(frame.height, frame.width, file.name, file.policy)
                check_held(file, self._held + form.decoder_bytes(self._threads), form)
                self._form = form
        if failure is not None:
            raise BrokenStreamError from failure
        return frames

    def _packets(self) -> Iterator[av.Packet]:
        """Yield the packets that hold data, watching the clock; a read error ends the stream."""
        file, count = self._file, 0
        packets = self._container.demux()  # a stream alone would be waited for without a look at the clock
        while True:
            try:
                packet = next(packets, None)
            except Exception:  # PyAV raises anything
                packet = None
            if time.monotonic() > self._deadline:
                raise file.limit("takes too many seconds to decode", "max_decode_seconds")
            if self._stop is not None and self._stop.is_set():
                raise StoppedError
            if packet is None:
                return
            if packet.stream_index != self.stream.index or not packet.size:
                continue
            if not count and packet.has_sidedata("encryption_info"):
                raise file.broken("is encrypted; decrypt it first")
            count += 1
            if count > file.policy.max_decoded_frames:
                raise file.limit(f"has {count} frames or more", "max_decoded_frames")
            yield packet

    def _hand_out(self, index: int, frame: av.VideoFrame) -> Iterator[tuple[int, av.VideoFrame]]:
        """Hand out a frame; the time until the next one is asked for is not the decoder's."""
        start = time.monotonic()
        yield index, frame
        now = time.monotonic()
        self._deadline = (
            now + self._file.policy.max_decode_seconds if self.clock_of_each else self._deadline + now - start
        )
