"""One opened video stream: its packets, and the frames decoded from them."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from .limits import check_size
from .packets import JUMP_PACKETS, SEEK_PACKETS, PacketTable, read_table, skippable
from .video_file import BrokenStreamError, ShortStreamError, VideoFile

if TYPE_CHECKING:
    import av
    import av.container

# Containers of video and animation. Playlists are not among them: they make the reader open files that they name.
_FORMATS = "mov,matroska,webm,avi,gif,apng,mpegts,mpeg,mpegvideo,flv,ogg,asf,ivf,h264,hevc,m4v,obu"


class VideoStream:
    """The first video stream of a file, decoded by `threads` threads; close it, or use it in a `with` statement."""

    backend = "pyav"

    def __init__(self, file: VideoFile, threads: int) -> None:
        import av

        self._file = file
        self._deadline = file.deadline
        # "file:", so that no name is taken for a protocol
        opened = io.BytesIO(file.data or b"") if file.path is None else f"file:{os.path.abspath(file.path)}"
        options = {
            "format_whitelist": _FORMATS,
            "protocol_whitelist": "file",
            "max_pixels": str(file.policy.max_pixels),
        }
        try:
            self._container: av.container.InputContainer = av.open(
                opened, options=options, timeout=file.policy.max_decode_seconds
            )
        except (av.FFmpegError, OSError, ValueError):
            # The decoder's own words may hold addresses and pieces of the input.
            raise file.broken("is not a video that can be read: unknown, damaged or cut off") from None
        if not self._container.streams.video:
            kinds = sorted({stream.type for stream in self._container.streams})
            self._container.close()
            raise file.broken(f"has no video stream (only {', '.join(kinds) or 'nothing'})")
        self.stream: av.VideoStream = self._container.streams.video[0]
        if hasattr(av.stream, "Discard"):  # newer PyAV can leave the other streams unread
            for stream in self._container.streams:
                if stream is not self.stream:
                    stream.discard = av.stream.Discard.all
        self.stream.thread_count = threads
        self.stream.thread_type = "AUTO"
        self.height: int = self.stream.codec_context.height
        self.width: int = self.stream.codec_context.width
        # codes of ITU-T H.273; 2 if the file does not say
        self.transfer: int = int(self.stream.codec_context.color_trc)
        self.matrix: int = int(self.stream.codec_context.colorspace)
        # width over height of a pixel; 1 if the file does not say
        self.sample_aspect_ratio = Fraction(self.stream.sample_aspect_ratio or 1)
        self.time_base: Fraction = self.stream.time_base
        self.frames: int = self.stream.frames  # 0 if the container does not say
        self.rate: Fraction | None = self.stream.average_rate or self.stream.guessed_rate

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
        import av

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

        try:
            # The first packet may tell which encoder wrote the stream, and the decoder minds that encoder's faults.
            yield from asked_for(context.decode(next(packets, None)))
            position = 1  # the packet that comes next
            for start, targets in table.groups(indices):
                from_reset = start - position > JUMP_PACKETS
                if from_reset:
                    yield from asked_for(context.decode(None))
                    context.flush_buffers()
                    if start - position > SEEK_PACKETS:
                        packets, position = self._seek(table, start)
                while position <= max(targets) and index_of:
                    packet = next(packets, None)
                    if packet is None:
                        break
                    leading = from_reset and (position < start or table.pts[position] < table.pts[start])
                    if not leading and (position in needed or not is_skippable(packet)):
                        yield from asked_for(context.decode(packet))
                    position += 1
                if not index_of:
                    return
            yield from asked_for(context.decode(None))
        except av.FFmpegError as error:
            raise BrokenStreamError from error
        if index_of:
            raise BrokenStreamError

    def decode_all(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (index, PyAV frame) for ascending `indices`, decoding from the start and counting what comes out.

        Packets that do not decode are passed over. Raises `ShortStreamError` if fewer frames come out.
        """
        import av

        remaining = set(indices)
        index = 0
        packets = self._packets()
        while True:
            packet = next(packets, None)
            try:
                frames = self.stream.codec_context.decode(packet)
            except av.FFmpegError:
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
        self._container.seek(int(table.pts[start]), stream=self.stream)
        packets = self._packets()
        first = next(packets, None)
        found = np.flatnonzero(table.pts == first.pts) if first is not None else np.array([], dtype=np.int64)
        if len(found) != 1 or found[0] > start:
            raise BrokenStreamError

        def from_first() -> Iterator[av.Packet]:
            yield first
            yield from packets

        return from_first(), int(found[0])

    def _packets(self) -> Iterator[av.Packet]:
        """Yield the packets that hold data, watching the clock; a read error ends the stream."""
        import av

        file, count = self._file, 0
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                return
            if packet is None:
                return
            if not packet.size:
                continue
            if not count and packet.has_sidedata("encryption_info"):
                raise file.broken("is encrypted; decrypt it first")
            count += 1
            if count > file.policy.max_decoded_frames:
                raise file.limit(f"has {count} frames or more", "max_decoded_frames")
            if time.monotonic() > self._deadline:
                raise file.limit("takes too many seconds to decode", "max_decode_seconds")
            yield packet

    def _hand_out(self, index: int, frame: av.VideoFrame) -> Iterator[tuple[int, av.VideoFrame]]:
        """Hand out a frame of allowed size; the time until the next one is asked for is not the decoder's."""
        check_size(frame.height, frame.width, self._file.name, self._file.policy)
        start = time.monotonic()
        yield index, frame
        self._deadline += time.monotonic() - start
