"""Clips whose containers cost as much as their bytes can: millions of units, packets, entries, elements, tracks."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import partial
from itertools import count, islice

import av
import numpy as np


def clip(codec: str, container: str, frames: int = 3, side: int = 64, **options: str) -> bytes:
    """Return a small clip that FFmpeg encodes."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as opened:
        stream = opened.add_stream(codec, rate=25)
        stream.width = stream.height = side
        stream.options = options
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(frames):
            picture = np.full((side * 3 // 2, side), 40 + index, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p").reformat(format=stream.pix_fmt)
            frame.pts = index
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode())
    return out.getvalue()


def filled(head: bytes, piece: bytes, size: int, tail: bytes = b"") -> bytes:
    """Return `head`, `piece` as often as `size` allows, and `tail`."""
    return head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


# --- raw streams: units behind start codes, and units with sizes of their own ---

X264 = {"preset": "ultrafast", "x264-params": "log-level=none"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}


def raw_units(codec: str, container: str, unit: bytes, options: dict[str, str], size: int) -> bytes:
    """A good clip, and behind it the same unit again and again."""
    return filled(clip(codec, container, **options), unit, size)


def hidden_units(size: int) -> bytes:
    """Units of which the bytes that a sample of windows looks at show nothing."""
    rng = np.random.default_rng(0)
    data = bytearray(raw_units("libx264", "h264", b"\0\0\1\x0c", X264, size))
    for number in range(1, 32):
        at = (len(data) - 1024) * number // 31
        data[at : at + 1024] = rng.integers(1, 256, 1024, np.uint8).tobytes()
    return bytes(data)


def random_units(size: int) -> bytes:
    """Units of a few bytes of chance, which cannot be compressed much."""
    head = clip("libx264", "h264", **X264)
    units = (size - len(head)) // 16
    table = np.random.default_rng(0).integers(1, 256, (units, 16), np.uint8)
    table[:, :4] = (0, 0, 1, 0x0C)
    return head + table.tobytes()


def slices(size: int) -> bytes:
    """The last slice of a clip, as often as it fits."""
    data = clip("libx264", "h264", **X264)
    return filled(data, data[data.rindex(b"\0\0\1") :], size)


def parameter_sets(size: int) -> bytes:
    """The sets of parameters, as often as they fit."""
    data = clip("libx264", "h264", **X264)
    return filled(data, data[: data.index(b"\0\0\1\x65" if b"\0\0\1\x65" in data else b"\0\0\1\x06")], size)


def obu_units(size: int, unit: bytes) -> bytes:
    """AV1 as a bare stream."""
    return filled(clip("libsvtav1", "obu", preset="12"), unit, size)


# --- containers with one packet of many units ---


def ivf(fourcc: bytes, frames: list[bytes], rate: tuple[int, int] = (25, 1), side: int = 64) -> bytes:
    """Return an IVF file of these frames."""
    head = b"DKIF" + struct.pack("<HH4sHHIIII", 0, 32, fourcc, side, side, *rate, len(frames), 0)
    return head + b"".join(struct.pack("<IQ", len(frame), index) + frame for index, frame in enumerate(frames))


def packets_of(data: bytes) -> list[bytes]:
    """Return the packets of a clip."""
    with av.open(io.BytesIO(data)) as opened:
        return [bytes(packet) for packet in opened.demux(video=0) if packet.size]


def ivf_many(codec: str, fourcc: bytes, packet: bytes | None, size: int) -> bytes:
    """Packets of a few bytes each."""
    options = {"preset": "12"} if codec == "libsvtav1" else {}
    good = packets_of(clip(codec, "ivf", **options))
    data = ivf(fourcc, good)
    again = good[-1] if packet is None else packet
    return filled(data, struct.pack("<IQ", len(again), 9) + again, size)


def ivf_one(codec: str, fourcc: bytes, unit: bytes, size: int, tail: bytes = b"") -> bytes:
    """One packet of millions of units."""
    options = {"preset": "12"} if codec == "libsvtav1" else {}
    first = packets_of(clip(codec, "ivf", **options))[0]
    return ivf(fourcc, [filled(first, unit, size - 64, tail)])


def lengths_in(container: str, codec: str, size: int, unit: bytes = b"\0\0\0\x02\x0c\x80") -> bytes:
    """A packet of millions of units with their lengths."""
    out = io.BytesIO()
    options = X264 if codec == "h264" else X265
    source = clip("libx264" if codec == "h264" else "libx265", "matroska", **options)
    with av.open(io.BytesIO(source)) as given, av.open(out, "w", format=container) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for index, packet in enumerate(given.demux(video=0)):
            if packet.size:
                data = filled(bytes(packet), unit, size - 8192) if index == 0 else bytes(packet)
                again = av.Packet(data)
                again.pts, again.dts, again.time_base, again.stream = packet.pts, packet.dts, packet.time_base, stream
                again.is_keyframe = packet.is_keyframe
                made.mux(again)
    return out.getvalue()


# --- MP4 ---


def box(kind: bytes, *content: bytes) -> bytes:
    """Return a box of MP4."""
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def full(kind: bytes, *content: bytes, flags: int = 0) -> bytes:
    """Return a box with version 0."""
    return box(kind, struct.pack(">I", flags), *content)


def entries(kind: bytes, table: bytes, each: int, claimed: int | None = None) -> bytes:
    """Return a box that holds a table."""
    return full(kind, struct.pack(">I", len(table) // each if claimed is None else claimed), table)


MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
JPEG = clip("mjpeg", "image2pipe", frames=1)


def track(stbl: bytes, *beside: bytes, number: int = 1) -> bytes:
    """Return a track of Motion JPEG with this table of samples."""
    tkhd = full(
        b"tkhd",
        struct.pack(">5I8xIHH", 0, 0, number, 0, 1000, 0, 0, 0),
        MATRIX,
        struct.pack(">II", 64 << 16, 64 << 16),
        flags=3,
    )
    mdhd = full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 1000, 1000, 0, 0))
    hdlr = full(b"hdlr", struct.pack(">I4s12xB", 0, b"vide", 0))
    dinf = box(b"dinf", entries(b"dref", full(b"url ", flags=1), 12))
    minf = box(b"minf", full(b"vmhd", bytes(8), flags=1), dinf, box(b"stbl", stbl))
    return box(b"trak", tkhd, *beside, box(b"mdia", mdhd, hdlr, minf))


SAMPLE = struct.pack(">6xH16xHHII4xH32xHh", 1, 64, 64, 0x480000, 0x480000, 1, 24, -1)
STSD = full(b"stsd", struct.pack(">I", 1), box(b"jpeg", SAMPLE))


def mp4(moov: bytes, data: bytes = JPEG) -> bytes:
    """Return a file of these parts of a `moov`."""
    mvhd = full(
        b"mvhd", struct.pack(">IIIIIH10x", 0, 0, 1000, 1000, 0x10000, 0x100), MATRIX, bytes(24), struct.pack(">I", 2)
    )
    return box(b"ftyp", b"isom\0\0\0\0isom") + box(b"mdat", data) + box(b"moov", mvhd, moov)


AT = 28  # where the data of `mdat` begin
ONE = {
    "stts": entries(b"stts", struct.pack(">II", 1, 40), 8),
    "stsc": entries(b"stsc", struct.pack(">III", 1, 1, 1), 12),
    "stsz": full(b"stsz", struct.pack(">II", len(JPEG), 1)),
    "stco": entries(b"stco", struct.pack(">I", AT), 4),
}


def tables(**changed: bytes) -> bytes:
    """Return the table of one sample, with parts replaced or added."""
    return STSD + b"".join((ONE | changed).values())


def mp4_table(kind: str, entry: bytes, each: int, size: int) -> bytes:
    """One table that fills the file."""
    table = entry * ((size - 4096) // each)
    return mp4(track(tables(**{kind: entries(kind.encode(), table, each)})))


def mp4_samples(size: int) -> bytes:
    """Samples of one byte each, with all their tables."""
    number = (size - 8192) // 24
    table = tables(
        stts=entries(b"stts", struct.pack(">II", 1, 40) * number, 8),
        stsz=full(b"stsz", struct.pack(">II", 0, number), struct.pack(">I", 1) * number),
        stco=entries(b"stco", struct.pack(">I", AT) * number, 4),
        ctts=entries(b"ctts", struct.pack(">II", 1, 0) * number, 8),
    )
    return mp4(track(table))


def mp4_constant(size: int, number: int = 100_000_000) -> bytes:
    """A hundred million samples of one size in a file of a kilobyte."""
    table = tables(
        stts=entries(b"stts", struct.pack(">II", number, 1), 8),
        stsc=entries(b"stsc", struct.pack(">III", 1, number, 1), 12),
        stsz=full(b"stsz", struct.pack(">II", 1, number)),
    )
    return mp4(track(table))


def mp4_ctts_runs(size: int) -> bytes:
    """Runs of composition times that stand for many more entries than there are."""
    number = (size - 8192) // 8
    table = tables(ctts=entries(b"ctts", struct.pack(">II", (1 << 31) - 1, 0) * number, 8))
    return mp4(track(table))


def mp4_tracks(size: int) -> bytes:
    """As many tracks as fit."""
    one = track(tables())
    return mp4(b"".join(track(tables(), number=index + 1) for index in range((size - 4096) // len(one))))


def mp4_fragments(size: int) -> bytes:
    """As many fragments as fit."""
    mvex = box(b"mvex", full(b"trex", struct.pack(">5I", 1, 1, 40, 1, 0)))
    head = mp4(track(tables()) + mvex)
    tfhd, trun = full(b"tfhd", struct.pack(">I", 1)), full(b"trun", struct.pack(">I", 1))
    moof = box(b"moof", full(b"mfhd", struct.pack(">I", 1)), box(b"traf", tfhd, trun)) + box(b"mdat", b"x")
    return filled(head, moof, size)


def mp4_run(size: int, number: int = 200_000_000) -> bytes:
    """A fragment that says that it holds many samples, none of which has an entry."""
    mvex = box(b"mvex", full(b"trex", struct.pack(">5I", 1, 1, 40, 1, 0)))
    tfhd, trun = full(b"tfhd", struct.pack(">I", 1)), full(b"trun", struct.pack(">I", number))
    moof = box(b"moof", full(b"mfhd", struct.pack(">I", 1)), box(b"traf", tfhd, trun))
    return mp4(track(tables()) + mvex) + moof + box(b"mdat", b"x")


def mp4_edits(size: int) -> bytes:
    """An edit list that fills the file, over many samples."""
    number = 20_000
    table = tables(
        stts=entries(b"stts", struct.pack(">II", number, 1), 8),
        stsc=entries(b"stsc", struct.pack(">III", 1, number, 1), 12),
        stsz=full(b"stsz", struct.pack(">II", 1, number)),
    )
    edits = struct.pack(">IIHH", 1000, 0, 1, 0) * ((size - 4096) // 12)
    return mp4(track(table, box(b"edts", entries(b"elst", edits, 12))))


def mp4_nested(size: int) -> bytes:
    """Boxes in boxes."""
    parts = [struct.pack(">I4s", 8 * (depth + 1), b"udta") for depth in range(min((size - 4096) // 8, 200_000))]
    return mp4(track(tables()) + b"".join(reversed(parts)))


def mp4_metadata(size: int) -> bytes:
    """As many texts as fit."""
    texts = b"".join(
        box(f"\xa9{index % 1000:03d}".encode("latin-1"), struct.pack(">HH", 1, 0), b"x")
        for index in range((size - 4096) // 13)
    )
    return mp4(track(tables()) + box(b"udta", texts))


def mp4_index(size: int) -> bytes:
    """A `sidx` that fills the file."""
    entry = struct.pack(">III", 1, 1, 0x90000000)
    boxes = [
        full(b"sidx", struct.pack(">5IH", 1, 1000, 0, 0, 0, 65_535)[:-2], struct.pack(">H", 65_535), entry * 65_535)
    ] * (size // 786_500)
    return mp4(track(tables())) + b"".join(boxes)


# --- Matroska ---


def element(number: bytes, content: bytes) -> bytes:
    """Return an element of Matroska with a length of four bytes."""
    return number + struct.pack(">I", 0x10000000 | len(content)) + content


def mkv(*parts: bytes, codec: bytes = b"V_MJPEG", tracks: int = 1) -> bytes:
    """Return a file of these parts of a segment, behind its tracks."""
    head = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"matroska"))
    info = element(b"\x15\x49\xa9\x66", element(b"\x2a\xd7\xb1", struct.pack(">I", 1_000_000)))
    video = element(b"\xe0", element(b"\xb0", b"\x40") + element(b"\xba", b"\x40"))
    entry = b"".join(
        element(
            b"\xae",
            element(b"\xd7", struct.pack(">I", index + 1))
            + element(b"\x83", b"\x01")
            + element(b"\x86", codec)
            + video,
        )
        for index in range(tracks)
    )
    return head + element(b"\x18\x53\x80\x67", info + element(b"\x16\x54\xae\x6b", entry) + b"".join(parts))


def block(content: bytes, track: int = 1) -> bytes:
    """Return a simple block."""
    return b"\xa3" + struct.pack(">I", 0x10000000 | len(content) + 4) + bytes([0x80 | track, 0, 0, 0x80]) + content


def mkv_of(piece: bytes, size: int, kind: bytes = b"", before: bool = False) -> bytes:
    """Pieces that fill the file, within an element `kind` if one is named, before or behind the pictures."""
    cluster = element(b"\x1f\x43\xb6\x75", element(b"\xe7", b"\0") + block(JPEG))
    pieces = piece * ((size - 8192) // len(piece))
    wrapped = element(kind, pieces) if kind else pieces
    return mkv(wrapped, cluster) if before else mkv(cluster, wrapped)


def mkv_laced(size: int) -> bytes:
    """Blocks of 256 frames of no bytes."""
    laced = b"\xa3" + struct.pack(">I", 0x10000000 | 6) + bytes([0x81, 0, 0, 0x84, 255]) + b"\0"
    return mkv_of(laced, size, b"\x1f\x43\xb6\x75")


CUE = element(b"\xbb", element(b"\xb3", b"\1") + element(b"\xb7", element(b"\xf7", b"\1") + element(b"\xf1", b"\1")))
TAG = element(b"\x73\x73", element(b"\x67\xc8", element(b"\x45\xa3", b"A") + element(b"\x44\x87", b"B")))
CHAPTER = element(b"\xb6", element(b"\x73\xc4", b"\1") + element(b"\x91", b"\1"))
ATTACHED = element(
    b"\x61\xa7",
    element(b"\x46\x6e", b"a")
    + element(b"\x46\x60", b"font/ttf")
    + element(b"\x46\x5c", b"x")
    + element(b"\x46\xae", b"\1"),
)


def mkv_tracks(size: int) -> bytes:
    """As many tracks as fit."""
    return mkv(tracks=(size - 4096) // 60)


# --- the others ---


def avi_chunks(size: int) -> bytes:
    """Chunks of no bytes behind a good clip, and the index that lists them."""
    data = clip("mjpeg", "avi")
    at = data.rindex(b"idx1")
    return filled(data[: at + 4] + struct.pack("<I", size - at - 64), b"00dc\x10\0\0\0\4\0\0\0\1\0\0\0", size)


def flv_tags(size: int) -> bytes:
    """Tags of one byte."""
    return filled(clip("flv1", "flv"), b"\x09\0\0\1" + bytes(7) + b"\x22" + struct.pack(">I", 12), size)


def flv_keyframes(size: int) -> bytes:
    """A list of key frames in the metadata."""
    number = (size - 4096) // 18
    numbers = (b"\0" + struct.pack(">d", 1.0)) * number
    lists = b"".join(
        struct.pack(">H", len(name)) + name + b"\x0a" + struct.pack(">I", number) + numbers
        for name in (b"times", b"filepositions")
    )
    body = b"\2\0\x0aonMetaData\x08\0\0\0\1\0\x09keyframes\3" + lists + b"\0\0\x09\0\0\x09"
    body = body[: (1 << 24) - 1]
    tag = b"\x12" + struct.pack(">I", len(body))[1:] + bytes(7) + body + struct.pack(">I", len(body) + 11)
    data = clip("flv1", "flv")
    return data[:13] + tag + data[13:]


def ts_packets(size: int, *, many: bool) -> bytes:
    """Packets of a transport stream that carry one byte, in one stream or in thousands."""
    head = clip("mpeg2video", "mpegts")
    pids = islice(count(300), 7000 if many else 1)
    pieces = [
        b"\x47"
        + struct.pack(">H", 0x4000 | pid % 8000)
        + b"\x30"
        + bytes([173, 0])
        + b"\xff" * 172
        + b"\0\0\1\xe0\0\0\x80\0\0\1"
        for pid in pids
    ]
    return filled(head, b"".join(pieces) if many else pieces[0].replace(b"\x41\x2c", b"\x41\x00"), size)


def ts_programs(size: int) -> bytes:
    """Tables of programs of which each names as many as it can."""

    def section(version: int, base: int) -> bytes:
        programs = b"".join(struct.pack(">HH", base + index, 0xE000 | (base + index) % 8000) for index in range(40))
        body = (
            b"\0"
            + struct.pack(">H", 0xB000 | len(programs) + 9)
            + struct.pack(">HBBB", 1, 0xC1 | version << 1, 0, 0)
            + programs
        )
        crc = 0xFFFFFFFF
        for byte in body:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ (0x04C11DB7 if crc & 1 << 31 else 0)) & 0xFFFFFFFF
        return (b"\x47\x40\0\x10\0" + body + struct.pack(">I", crc)).ljust(188, b"\xff")

    pieces = b"".join(section(index % 32, 300 + 40 * index % 7000) for index in range(175))
    return filled(clip("mpeg2video", "mpegts"), pieces, size)


def ps_packs(size: int) -> bytes:
    """Packs of a program stream that carry one byte."""
    return filled(clip("mpeg2video", "vob"), b"\0\0\1\xe0\0\4\x80\0\0\1", size)


def ogg_pages(size: int, *, many: bool = False) -> bytes:
    """Pages that carry empty packets, of one stream or of thousands."""
    pages = b"".join(
        b"OggS\0" + (b"\2" if many else b"\0") + struct.pack("<qIII", 0, index, 0, 0) + b"\xff" + bytes(255)
        for index in range(1000 if many else 1)
    )
    return filled(pages[:282], pages, size)


def gif_blocks(size: int) -> bytes:
    """Extensions of no bytes."""
    head = b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 64, 64, 0) + b"\x02" + b"\x02\x44\x01\x00"
    return filled(head + frame, b"\x21\xf9\0", size, b"\x3b")


def apng_chunks(size: int, kind: bytes) -> bytes:
    """Chunks of one kind."""
    import zlib

    def chunk(name: bytes, body: bytes = b"") -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    head += chunk(b"acTL", struct.pack(">II", 1000, 0))
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 64, 64, 0, 0, 1, 10, 0, 0))
    pixels = zlib.compress(bytes(64 * 193))
    pieces = {b"IDAT": chunk(b"IDAT"), b"tEXt": chunk(b"tEXt", b"a\0b"), b"fcTL": control}
    return filled(head + control + chunk(b"IDAT", pixels), pieces[kind], size)


_FILLER, _SEI, _DELIMITER, _EMPTY = b"\0\0\1\x0c", b"\0\0\1\x06", b"\0\0\1\x09", b"\0\0\1"
_264, _265 = ("libx264", "h264", X264), ("libx265", "hevc", X265)

WORST: dict[str, Callable[[int], bytes]] = {
    **{
        f"H.264, {name}": partial(lambda size, unit: raw_units("libx264", "h264", unit, X264, size), unit=unit)
        for name, unit in {
            "units of filler": _FILLER,
            "SEI units": _SEI + b"\x80",
            "delimiters": _DELIMITER + b"\xf0",
            "codes only": _EMPTY,
            "slices of nothing": b"\0\0\1\x01",
        }.items()
    },
    **{
        f"HEVC, {name}": partial(lambda size, unit: raw_units("libx265", "hevc", unit, X265, size), unit=unit)
        for name, unit in {
            "units of filler": b"\0\0\1\x4c\1",
            "SEI units": b"\0\0\1\x4e\1\x80",
            "delimiters": b"\0\0\1\x46\1\x50",
            "slices of nothing": b"\0\0\1\x02\1",
        }.items()
    },
    "H.264, hidden units": hidden_units,
    "H.264, units of chance": random_units,
    "H.264, slices": slices,
    "H.264, parameter sets": parameter_sets,
    "H.264, lengths in MP4": partial(lengths_in, "mp4", "h264"),
    "H.264, lengths in Matroska": partial(lengths_in, "matroska", "h264"),
    "HEVC, lengths in Matroska": partial(lambda size: lengths_in("matroska", "hevc", size, b"\0\0\0\x02\x4c\1")),
    "MPEG-4, start codes": partial(lambda size: raw_units("mpeg4", "m4v", b"\0\0\1\xb3", {}, size)),
    "MPEG-4, empty pictures": partial(lambda size: raw_units("mpeg4", "m4v", b"\0\0\1\xb6", {}, size)),
    "MPEG-2, start codes": partial(lambda size: raw_units("mpeg2video", "mpeg2video", b"\0\0\1\xb2", {}, size)),
    "MPEG-2, slices": partial(lambda size: raw_units("mpeg2video", "mpeg2video", b"\0\0\1\1", {}, size)),
    "MPEG-2, pictures": partial(lambda size: raw_units("mpeg2video", "mpeg2video", b"\0\0\1\0", {}, size)),
    "AV1, delimiters": partial(obu_units, unit=b"\x12\0"),
    "AV1, padding": partial(obu_units, unit=b"\x7a\0"),
    "AV1, metadata": partial(obu_units, unit=b"\x2a\2\4\x80"),
    "AV1, padding in a packet": partial(ivf_one, "libsvtav1", b"AV01", b"\x7a\0"),
    "AV1, tile groups in a packet": partial(ivf_one, "libsvtav1", b"AV01", b"\x22\0"),
    "AV1, delimiters in a packet": partial(ivf_one, "libsvtav1", b"AV01", b"\x12\0"),
    "AV1, packets": partial(ivf_many, "libsvtav1", b"AV01", b"\x12\0"),
    "VP8, packets": partial(ivf_many, "libvpx", b"VP80", b"\1"),
    "VP8, empty packets": partial(ivf_many, "libvpx", b"VP80", b""),
    "VP9, packets": partial(ivf_many, "libvpx-vp9", b"VP90", b"\x88"),
    "VP9, superframe": partial(
        lambda size: ivf_one("libvpx-vp9", b"VP90", b"\x88", size, b"\xc7" + b"\1" * 8 + b"\xc7")
    ),
    "MP4, stts": partial(mp4_table, "stts", struct.pack(">II", 1, 40), 8),
    "MP4, ctts": partial(mp4_table, "ctts", struct.pack(">II", 1, 0), 8),
    "MP4, ctts in runs": mp4_ctts_runs,
    "MP4, stsc": partial(mp4_table, "stsc", struct.pack(">III", 1, 1, 1), 12),
    "MP4, stco": partial(mp4_table, "stco", struct.pack(">I", AT), 4),
    "MP4, stss": partial(mp4_table, "stss", struct.pack(">I", 1), 4),
    "MP4, sdtp": partial(mp4_table, "sdtp", b"\0", 1),
    "MP4, samples": mp4_samples,
    "MP4, samples of one size": mp4_constant,
    "MP4, tracks": mp4_tracks,
    "MP4, fragments": mp4_fragments,
    "MP4, fragment without entries": mp4_run,
    "MP4, edits": mp4_edits,
    "MP4, nested": mp4_nested,
    "MP4, texts": mp4_metadata,
    "MP4, sidx": mp4_index,
    "Matroska, blocks": partial(mkv_of, block(b"x"), kind=b"\x1f\x43\xb6\x75"),
    "Matroska, empty blocks": partial(mkv_of, block(b""), kind=b"\x1f\x43\xb6\x75"),
    "Matroska, laced blocks": mkv_laced,
    "Matroska, clusters": partial(mkv_of, element(b"\x1f\x43\xb6\x75", element(b"\xe7", b"\0"))),
    "Matroska, cues": partial(mkv_of, CUE, kind=b"\x1c\x53\xbb\x6b", before=True),
    "Matroska, tags": partial(mkv_of, TAG, kind=b"\x12\x54\xc3\x67", before=True),
    "Matroska, chapters": partial(mkv_of, element(b"\x45\xb9", CHAPTER), kind=b"\x10\x43\xa7\x70", before=True),
    "Matroska, attachments": partial(mkv_of, ATTACHED, kind=b"\x19\x41\xa4\x69", before=True),
    "Matroska, voids": partial(mkv_of, b"\xec\x80", before=True),
    "Matroska, seeks": partial(
        mkv_of,
        element(b"\x4d\xbb", element(b"\x53\xab", b"\x1c\x53\xbb\x6b") + element(b"\x53\xac", b"\1")),
        kind=b"\x11\x4d\x9b\x74",
        before=True,
    ),
    "Matroska, tracks": mkv_tracks,
    "AVI, index": avi_chunks,
    "FLV, tags": flv_tags,
    "FLV, key frames": flv_keyframes,
    "TS, packets": partial(ts_packets, many=False),
    "TS, streams": partial(ts_packets, many=True),
    "TS, programs": ts_programs,
    "PS, packs": ps_packs,
    "Ogg, pages": ogg_pages,
    "Ogg, streams": partial(ogg_pages, many=True),
    "GIF, extensions": gif_blocks,
    "APNG, data chunks": partial(apng_chunks, kind=b"IDAT"),
    "APNG, texts": partial(apng_chunks, kind=b"tEXt"),
    "APNG, frames": partial(apng_chunks, kind=b"fcTL"),
}
