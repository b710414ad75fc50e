"""Clips that are not as usual, in memory: raw streams, covers, changed boxes."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from PIL import Image


def encoded(
    container: str,
    width: int = 64,
    height: int = 48,
    frames: int = 20,
    *,
    codec: str = "libx264",
    rate: int = 10,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> bytes:
    """A clip whose frames grow brighter."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as opened:
        stream: Any = opened.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, pix_fmt, options or {}
        for index in range(frames):
            grey = np.full((height, width, 3), index * 255 // frames, np.uint8)
            opened.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=pix_fmt)))
        opened.mux(stream.encode())
    return out.getvalue()


def jpeg(side: int = 100) -> bytes:
    """A blue picture."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), "blue").save(out, "JPEG")
    return out.getvalue()


def box(kind: bytes, payload: bytes) -> bytes:
    """A box of an MP4."""
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of an MP4, or of a box of it: kind, and the whole box."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at : at + size]
        at += size


def with_cover(mp4: bytes, keep_video: bool = True) -> bytes:
    """An MP4 whose cover comes before its tracks; without its tracks, if `keep_video` is False."""
    cover = box(b"covr", box(b"data", struct.pack(">II", 13, 0) + jpeg()))
    handler = box(b"hdlr", struct.pack(">II4s4sIIB", 0, 0, b"mdir", b"appl", 0, 0, 0))
    user = box(b"udta", box(b"meta", bytes(4) + handler + box(b"ilst", cover)))
    out = b""
    for kind, whole in boxes(mp4):
        if kind == b"moov":
            inner = list(boxes(whole[8:]))
            rest = b"".join(each for name, each in inner[1:] if name != b"udta" and (keep_video or name != b"trak"))
            whole = box(b"moov", inner[0][1] + user + rest)
        out += whole
    return out
