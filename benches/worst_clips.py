"""Clips that cost as much as their bytes can: for each codec many large frames, large packets, or many references."""

from __future__ import annotations

import functools
import io
import itertools
import random
import struct
from collections.abc import Callable
from typing import Any

import av
import numpy as np


def _noise(height: int, width: int) -> list[av.VideoFrame]:
    """Two pictures that no encoder can predict."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, height * 3 // 2, width), np.uint8)
    return [av.VideoFrame.from_ndarray(picture, format="yuv420p") for picture in pictures]


def _flat(height: int, width: int) -> list[av.VideoFrame]:
    """Two pictures that cost nothing to encode."""
    pictures = np.stack([np.full((height * 3 // 2, width), grey, np.uint8) for grey in (40, 90)])
    return [av.VideoFrame.from_ndarray(picture, format="yuv420p") for picture in pictures]


def encode(
    size: int,
    pictures: list[av.VideoFrame],
    container: str,
    codec: str,
    *,
    most: int = 400,
    options: dict[str, str] | None = None,
) -> bytes:
    """Encode pictures in turn until the clip has `size` bytes, or `most` frames."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as opened:
        stream: Any = opened.add_stream(codec, rate=30)
        stream.width, stream.height, stream.options = pictures[0].width, pictures[0].height, options or {}
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 90_000_000
        for index, picture in zip(range(most), itertools.cycle(pictures), strict=False):
            picture.pts = index
            opened.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
            if out.tell() > size * 9 // 10:
                break
        opened.mux(stream.encode())
    data = out.getvalue()
    return data if len(data) <= size else data[:size]


def h264_noise(size: int) -> bytes:
    """1080p with CABAC at its largest."""
    return encode(
        size, _noise(1080, 1920), "matroska", "libx264", options={"preset": "ultrafast", "qp": "8", "coder": "1"}
    )


def h264_one_packet(size: int) -> bytes:
    """One picture that takes every byte."""
    return encode(size, _noise(3840, 3840), "matroska", "libx264", most=1, options={"qp": "1", "coder": "1"})


def h264_references(size: int) -> bytes:
    """Sixteen references of 1440p."""
    x264 = "ref=16:bframes=16:b-pyramid=normal:b-adapt=0"
    return encode(
        size, _flat(1440, 2560), "mp4", "libx264", most=60, options={"preset": "ultrafast", "x264-params": x264}
    )


def h264_grows(size: int) -> bytes:
    """64×64 pixels that become 12,000×12,000."""
    fast = {"preset": "ultrafast"}
    small = encode(size, _flat(64, 64), "h264", "libx264", most=10, options=fast)
    return small + encode(size, _flat(12_000, 12_000), "h264", "libx264", most=2, options=fast)


def h264_most_frames(size: int) -> bytes:
    """As many small frames as fit in a minute of encoding."""
    return encode(size, _flat(1080, 1920), "matroska", "libx264", most=3000, options={"preset": "ultrafast"})


def h264_empty_units(size: int) -> bytes:
    """A packet of millions of empty units."""
    clip = encode(size, _flat(64, 64), "h264", "libx264", most=3, options={"preset": "ultrafast"})
    return clip + b"\0\0\1\x0c" * ((size - len(clip)) // 4)


def mkv_many_packets(size: int) -> bytes:
    """Packets of a few bytes each."""
    return encode(size, _flat(16, 16), "matroska", "mpeg4", most=100_000)


def gif_canvas(size: int) -> bytes:
    """Frames of 5000×5000 pixels in one colour."""
    head = b"GIF89a" + struct.pack("<HHBBB", 5000, 5000, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 5000, 5000, 0) + b"\x02" + b"\x02\x44\x01\x00"
    return (head + frame * min(200_000, (size - len(head)) // len(frame)) + b"\x3b")[:size]


def _chance(head: bytes, size: int) -> bytes:
    """Bytes of chance behind a good beginning."""
    return head + random.Random(0).randbytes(size - len(head))


def webp_canvas(size: int) -> bytes:
    """An animated WebP of many large frames."""
    from PIL import Image

    out = io.BytesIO()
    frames = [Image.new("RGB", (4000, 4000), (grey, 0, 0)) for grey in range(0, 120, 10)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], duration=50)
    return out.getvalue()[:size]


def _of(codec: str, container: str, **options: str) -> Callable[[int], bytes]:
    return functools.partial(
        lambda size, codec, container, options: encode(size, _noise(1080, 1920), container, codec, options=options),
        codec=codec,
        container=container,
        options=options,
    )


WORST: dict[str, Callable[[int], bytes]] = {
    "H.264, noise": h264_noise,
    "H.264, one packet": h264_one_packet,
    "H.264, 16 references": h264_references,
    "H.264, grows": h264_grows,
    "H.264, most frames": h264_most_frames,
    "H.264, empty units": h264_empty_units,
    "MPEG-4, many packets": mkv_many_packets,
    "HEVC, noise": _of("libx265", "matroska", preset="ultrafast", qp="8", **{"x265-params": "log-level=none"}),
    "VP8, noise": _of("libvpx", "webm", deadline="realtime", **{"cpu-used": "8"}),
    "VP9, noise": _of("libvpx-vp9", "webm", deadline="realtime", **{"cpu-used": "8"}),
    "AV1, noise": _of("libsvtav1", "matroska", preset="12"),
    "MPEG-2, noise": _of("mpeg2video", "mpegts", qmin="1", qmax="2"),
    "MPEG-4, noise": _of("mpeg4", "avi", qmin="1", qmax="2"),
    "MJPEG, noise": _of("mjpeg", "avi", qmin="1", qmax="2"),
    "GIF, canvas": gif_canvas,
    "WebP, canvas": webp_canvas,
    "MP4, chance": lambda size: _chance(struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0), size),
    "TS, chance": lambda size: b"".join(
        b"\x47" + random.Random(n).randbytes(187) for n in range(min(100_000, size // 188))
    ),
}
