"""The packets of a video stream, and which of them a decoder needs for given frames.

Reading packets costs microseconds, decoding one costs milliseconds. So the whole stream is read once without decoding;
its table tells how many frames there are, at which time each is shown, and from which packets decoding can start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av

# Codecs of which one packet is one frame, and whose packets tell whether decoding can start there with equal results.
_RESETS = {"h264", "hevc", "vp9", "av1", "libdav1d"}
_H264_IDR = 5
_HEVC_IRAP = range(16, 22)
# Pictures that no picture of their layer refers to; delimiters, filler and messages that may stand beside them.
_H264_DROPPABLE = {1, 2, 3, 4, 6, 9, 12}
_HEVC_DROPPABLE = {*range(0, 15, 2), 35, 38, 39, 40}

# NAL units of one packet that are looked at. Each takes a microsecond: a packet of millions of empty ones, seconds.
MOST_UNITS = 4096
_SMALL = 64 << 10  # bytes of a packet that cannot hold enough units to matter
_UNREAD = b"\xff\xff"  # of no type that may be left out

# Emptying the decoder and starting anew costs about as much as decoding this many packets.
JUMP_PACKETS = 4
# Reading over this many packets costs more than to seek.
SEEK_PACKETS = 300


@dataclass(frozen=True)
class PacketTable:
    """One row per packet, in decoding order.

    `order[i]` is the packet of the i-th frame shown, `keys` the packets (ascending) that are marked as key frames,
    `resets` those of them from which decoding can start with equal results. `stamped` says whether the file tells when
    frames are shown; otherwise `pts` only counts packets.
    `exact` says whether packets and frames are known to be one to one; otherwise only the number of rows means
    something, as an upper bound.
    """

    pts: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    resets: npt.NDArray[np.int64]
    exact: bool
    stamped: bool = True

    def __len__(self) -> int:
        return len(self.pts)

    def groups(self, indices: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Group frames (ascending indices) by the packet from which decoding has to start; yields (packet, packets)."""
        packets = self.order[np.asarray(indices, dtype=np.int64)]
        starts: dict[int, list[int]] = {}
        reset_pts = self.pts[self.resets]
        for packet in packets:
            # Frames that follow the reset in decoding order but are shown before it may refer to what precedes it.
            shown = np.flatnonzero((reset_pts <= self.pts[packet]) & (self.resets <= packet))
            starts.setdefault(int(self.resets[shown[-1]]), []).append(int(packet))
        yield from sorted(starts.items())

    def split(self, indices: list[int], parts: int) -> list[list[int]]:
        """Cut ascending indices into at most `parts` pieces that cost about the same and start at different resets."""
        index_of = {int(self.order[index]): index for index in indices}
        groups = [
            ([index_of[packet] for packet in packets], max(packets) - start + 1)
            for start, packets in self.groups(indices)
        ]
        share = sum(cost for _, cost in groups) / parts
        pieces: list[list[int]] = [[]]
        done = 0.0
        for members, cost in groups:
            # A group whose middle lies beyond the share belongs to the next piece.
            if pieces[-1] and done + cost / 2 > share * len(pieces):
                pieces.append([])
            pieces[-1] += members
            done += cost
        return [sorted(piece) for piece in pieces]


def read_table(packets: Iterator[av.Packet], codec: str, extradata: bytes | None) -> PacketTable:
    """Read every packet (PyAV `Packet`s) and build the table of the stream."""
    nal = _nal_reader(codec, extradata)
    pts: list[int | None] = []
    dts: list[int | None] = []
    hidden: list[bool] = []
    keys: list[int] = []
    resets: list[int] = []
    for packet in packets:
        if not packet.size:
            continue
        if packet.is_keyframe:
            keys.append(len(pts))
            if _is_reset(codec, nal, packet):
                resets.append(len(pts))
        pts.append(packet.pts)
        dts.append(packet.dts)
        hidden.append(packet.is_discard)
    known = all(value is not None for value in pts)
    # Decoding times, which are shifted alike, tell as much in a file that has no others.
    stamps = pts if known else dts
    stamped = all(value is not None for value in stamps)
    times = np.array(stamps if stamped else range(len(pts)), dtype=np.int64)
    shown = np.flatnonzero(~np.array(hidden, dtype=bool)) if any(hidden) else np.arange(len(times))
    order = shown[np.argsort(times[shown], kind="stable")]
    exact = (
        codec in _RESETS
        and known
        and len(order) > 0
        and len(np.unique(times)) == len(times)
        and resets[:1] == [0]
        and int(times.min()) == int(times[0])
    )
    return PacketTable(times, order, np.array(keys, dtype=np.int64), np.array(resets, dtype=np.int64), exact, stamped)


def skippable(codec: str, extradata: bytes | None) -> Callable[[av.Packet], bool]:
    """Return a test: can every other frame be decoded without this packet? False if that is unknown."""
    nal = _nal_reader(codec, extradata)
    if nal is None:
        return lambda packet: False
    if codec == "h264":  # nal_ref_idc is 0, and no parameter set comes along
        return lambda packet: all(h[0] & 31 in _H264_DROPPABLE and not h[0] >> 5 & 3 for h in nal(packet))
    # The pictures of a higher temporal layer may refer to any of a lower one, so there must be one layer only.
    one_layer = extradata is not None and len(extradata) > 21 and extradata[0] == 1 and extradata[21] >> 3 & 7 == 1
    return lambda packet: one_layer and all(h[0] >> 1 & 63 in _HEVC_DROPPABLE for h in nal(packet))


def has_too_many_units(codec: str, extradata: bytes | None, packet: av.Packet) -> bool:
    """Whether a packet holds more NAL units than the slices of a picture; no decoder is to read them."""
    if packet.size <= _SMALL:
        return False
    nal = _nal_reader(codec, extradata)
    return nal is not None and len(nal(packet)) > MOST_UNITS


def _is_reset(codec: str, nal: Callable[[av.Packet], list[bytes]] | None, packet: av.Packet) -> bool:
    if codec not in _RESETS:
        return False
    if nal is None:
        return True  # a key frame of VP9 and AV1 resets the decoder
    if codec == "h264":  # an I picture with a recovery point is a key frame too, but may need what precedes it
        return any(header[0] & 31 == _H264_IDR for header in nal(packet))
    return any(header[0] >> 1 & 63 in _HEVC_IRAP for header in nal(packet))


def _nal_reader(codec: str, extradata: bytes | None) -> Callable[[av.Packet], list[bytes]] | None:
    """Return a function that lists the two-byte headers of the NAL units of a packet, or None for other codecs."""
    at = {"h264": 4, "hevc": 21}.get(codec)
    if at is None:
        return None
    if not extradata or extradata[0] != 1 or len(extradata) <= at:
        return _start_code_headers
    return lambda packet: _length_headers(packet, (extradata[at] & 3) + 1)


def _length_headers(packet: av.Packet, size: int) -> list[bytes]:
    data = memoryview(packet)
    headers: list[bytes] = []
    position = 0
    while position + size + 2 <= len(data):
        if len(headers) == MOST_UNITS:
            return [*headers, _UNREAD]
        start = position + size
        headers.append(bytes(data[start : start + 2]))
        position = start + int.from_bytes(data[position:start], "big")
    return headers


def _start_code_headers(packet: av.Packet) -> list[bytes]:
    data = bytes(packet)
    headers: list[bytes] = []
    position = data.find(b"\0\0\1")
    while 0 <= position <= len(data) - 5:
        if len(headers) == MOST_UNITS:
            return [*headers, _UNREAD]
        headers.append(data[position + 3 : position + 5])
        position = data.find(b"\0\0\1", position + 3)
    return headers
