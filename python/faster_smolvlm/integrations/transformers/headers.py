"""Files as Transformers' picture reader sees them: of their metadata only the orientation, by its rules.

That reader (torchvision) turns JPEG and PNG by the first EXIF block, WebP never; Pillow also reads XMP, text chunks and
later blocks. It stops at the last row of a PNG and does not look at what follows. What is different is taken out of the
file before it is decoded.
"""

from __future__ import annotations

import struct
import zlib

from ...media.errors import MediaDecodeError

PNG = b"\x89PNG\r\n\x1a\n"
_TURNED = range(2, 9)  # the orientations that turn or mirror
_HEAD, _SCAN, _APP1 = 8, 0xDA, 0xE1
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}


def plain_png(data: bytes, label: str) -> bytes:
    """Return a PNG of header, palette, pixels and orientation; raises MediaDecodeError if one of them is damaged."""
    kept, orientation, at, rows = [PNG], 1, len(PNG), False
    while at + _HEAD <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if rows and kind != b"IDAT":
            break
        if end > len(data) and kind == b"IDAT":  # all rows may be there
            kept.append(_chunk(kind, data[at + _HEAD :]))
            break
        if end > len(data):
            raise MediaDecodeError(f"{label} is a truncated PNG file")
        whole = zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if kind in (b"IHDR", b"PLTE", b"IDAT"):
            if not whole:
                raise MediaDecodeError(f"{label} is a broken PNG file: its {kind.decode()} chunk has a wrong checksum")
            kept.append(data[at:end])
            rows = kind == b"IDAT"
        elif kind == b"eXIf" and whole and orientation == 1:
            orientation = _orientation(data[at + _HEAD : end - 4])
        elif kind == b"IEND":
            break
        at = end
    if orientation in _TURNED:
        kept.insert(2, _chunk(b"eXIf", _exif(orientation)))
    return b"".join([*kept, _chunk(b"IEND", b"")])


def plain_jpeg(data: bytes) -> bytes:
    """Return a JPEG without APP1 blocks, but with the orientation that the first of them holds."""
    kept, first, at = [data[:2]], b"", 2
    while True:
        start, at = at, data.find(b"\xff", at)
        while 0 <= at < len(data) - 1 and data[at + 1] == 0xFF:
            at += 1
        if at < 0 or at + 4 > len(data) or data[at + 1] == _SCAN:
            kept.append(data[start:])
            break
        marker = data[at + 1]
        end = at + 2 + (0 if marker in (0, *_BARE_MARKERS) else int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker != _APP1:
            kept.append(data[start:end])
        elif not first:
            first = data[at + 4 : end]
        at = end
    orientation = _orientation(first[6:])
    if orientation in _TURNED:
        body = b"Exif\0\0" + _exif(orientation)
        kept.insert(1, struct.pack(">BBH", 0xFF, _APP1, len(body) + 2) + body)
    return b"".join(kept)


def plain_webp(data: bytes) -> bytes:
    """Return a WebP file whose metadata no reader looks at."""
    plain, at = bytearray(data), 12
    while at + _HEAD <= len(data):
        if data[at : at + 4] in (b"EXIF", b"XMP "):
            plain[at : at + 4] = b"none"
        at += _HEAD + (int.from_bytes(data[at + 4 : at + 8], "little") + 1 & ~1)
    if data[12:16] == b"VP8X" and len(data) > 20:
        plain[20] &= ~0x0C  # the flags that announce them
    return bytes(plain)


def has_alpha(data: bytes) -> bool:
    """Whether the header of a PNG or WebP file announces transparency."""
    if data.startswith(PNG):
        return data[25:26] in (b"\x04", b"\x06")
    if data[12:16] == b"VP8X":
        return bool(data[20:21] and data[20] & 0x10)
    return data[12:16] == b"VP8L" and len(data) > 24 and bool(data[24] & 0x10)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _exif(orientation: int) -> bytes:
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _orientation(exif: bytes) -> int:
    """Return the orientation that a block of EXIF, without its name, gives; 1 if it gives none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        mark, at = struct.unpack_from(f"{order}HI", exif, 2)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12) if mark == 42 else ():
            if struct.unpack_from(f"{order}H", exif, entry)[0] == 0x0112:
                return int(struct.unpack_from(f"{order}H", exif, entry + 8)[0])
    except struct.error:  # it ends early
        pass
    return 1
