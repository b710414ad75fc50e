"""What decoding a picture will take, from its header: bytes of memory at most, seconds in one call at most.

The figures are those of Pillow 11.3 to 13 and of the decoders in its wheels; a test measures that none is too small.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .grey import is_deep_grey
from .jpeg_scans import Seekable, count_scans

if TYPE_CHECKING:
    import PIL.Image

# Bytes of a pixel of a PIL image; every other mode has 4.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
# Bytes that a decoder holds for each pixel beside the PIL image.
_DECODER = {
    "WEBP": 16,  # two canvases, the pixels handed over, those of a lossless frame
    "AVIF": 24,  # planes of 16 bits with alpha, twice for a grid; the pixels, twice
    "JPEG2000": 32,  # four components of 32 bits for the tile, again for the picture, their unpacking
    "ICO": 12,  # decoded while it is opened, with a mask
    "QOI": 10,
    "GIF": 1,
    "BMP": 3,  # in runs
    "DIB": 3,
    "PPM": 14,  # text, and depths other than 8 and 16: bytes that are gathered, then copied
}
# How often the encoded bytes are held beside the source's own.
_COPIES = {"WEBP": 3, "AVIF": 3, "JPEG2000": 1, "TIFF": 2, "SGI": 2}
# Seconds for a pixel in one call that cannot be left, at the worst that was made (0: the decoder comes back to Python).
_SECONDS = {"AVIF": 210e-9, "JPEG2000": 600e-9, "TIFF": 40e-9}
_WEBP_PIXEL, _WEBP_BYTE = 15e-9, 95e-9
_SCAN_SECONDS = 1.4e-9  # for a pixel of a scan without data
_CONSTANT = 4 << 20
_TEXT = 24 << 20  # bytes for the numbers of one block of a plain PPM

PYTHON_SECONDS = 5e-6
"""Seconds for a pixel of the formats that Pillow decodes in Python."""


def peak_bytes(image: PIL.Image.Image, encoded: int, scans: int = 1, *, turned: bool = False) -> int:
    """Return the most bytes that are held while an opened picture is decoded, made RGB and, with `turned`, upright.

    `encoded` are the bytes of the file; they count once for the source, and as often as the decoder copies them.
    """
    pixels, stored, name = image.width * image.height, _stored(image.mode), decoder_name(image)
    after = 0 if image.mode == "RGB" else 5 if is_deep_grey(image) else 4
    if turned:
        return pixels * (2 * stored + after) + encoded + _CONSTANT
    # Coefficients of a JPEG are let go before the picture is converted; the others are held, or may be.
    extra, of_jpeg = _decoder_bytes(image, scans), image.format in ("JPEG", "MPO")
    each = stored + (max(extra, after) if of_jpeg else extra + after)
    copies = 0 if name == "raw" and image.format == "TIFF" else _COPIES.get(image.format or "", 0)
    return int(pixels * each) + encoded * (1 + copies) + _CONSTANT + (_TEXT if name == "ppm_plain" else 0)


def webp_peak_bytes(width: int, height: int, encoded: int) -> int:
    """Return the same for a WEBP that is not opened yet: opening it takes memory for the canvas."""
    return width * height * (4 + _DECODER["WEBP"]) + encoded * (1 + _COPIES["WEBP"]) + _CONSTANT


def icon_peak_bytes(width: int, height: int, encoded: int) -> int:
    """Return the same for the picture of an ICO that is not opened yet."""
    return width * height * (4 + _DECODER["ICO"]) + encoded + _CONSTANT


def scan_seconds(pixels: int, scans: int) -> float:
    """Return the seconds that scans without data take."""
    return pixels * scans * _SCAN_SECONDS


def call_seconds(image: PIL.Image.Image, scans: int = 1) -> float:
    """Return the most seconds that decoding an opened picture stays in one call that cannot be interrupted."""
    pixels = image.width * image.height
    if image.format == "TIFF":
        seconds = _SECONDS["TIFF"] + _SCAN_SECONDS * max(0, scans - 1)
        return pixels * seconds if decoder_name(image) == "libtiff" else 0
    return pixels * _SECONDS.get(image.format or "", 0)


def webp_seconds(width: int, height: int, encoded: int) -> float:
    """Return the same for a WEBP that is not opened yet; its decoder works by pixels and by bytes."""
    return width * height * _WEBP_PIXEL + min(encoded, width * height) * _WEBP_BYTE


def most_scans(image: PIL.Image.Image, file: Seekable, limit: int) -> int:
    """Return the scans of an opened JPEG, or of the JPEG with most scans in an opened TIFF, up to `limit` + 1."""
    if image.format in ("JPEG", "MPO"):
        if _is_one_scan(image, file):
            return 1
        file.seek(0)
        return count_scans(file, limit)
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None or tags.get(259) not in (6, 7):
        return 1
    scans = 1
    for name in (273, 324):  # strips, tiles
        offsets = tags.get(name, ())
        for offset in offsets if isinstance(offsets, tuple) else (offsets,):
            file.seek(int(offset))
            scans = max(scans, count_scans(file, limit))
            if scans > limit:
                return scans
    return scans


def _is_one_scan(image: PIL.Image.Image, file: Seekable) -> bool:
    """Whether an opened JPEG is seen to have one scan: it is baseline, and `file` is behind the head of a full one."""
    components = getattr(image, "layers", 0)
    head = 8 + 2 * components
    if image.info.get("progressive") or file.tell() < head:
        return False
    file.seek(-head, 1)
    return file.read(head)[:5] == b"\xff\xda" + bytes([0, head - 2, components])


def header_size(head: bytes) -> tuple[int, int] | None:
    """Return (width, height) that the first 30 bytes of a WEBP say; None if they are of another format."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    if head[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
    elif head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[26:30]))
    return width, height


def icon_sizes(file: Seekable) -> list[tuple[int, int]]:
    """Return (width, height) of the pictures in an ICO at the beginning of `file`; none if it is of another format."""
    file.seek(0)
    head = file.read(6)
    if head[:4] != b"\0\0\1\0":
        return []
    entries = [file.read(16) for _ in range(int.from_bytes(head[4:], "little"))]
    sizes = []
    for entry in entries:
        if len(entry) < 16:
            break
        file.seek(int.from_bytes(entry[12:], "little"))
        start = file.read(24)
        if start[:8] == b"\x89PNG\r\n\x1a\n":
            sizes.append(struct.unpack(">II", start[16:24].ljust(8, b"\0")))
        elif len(start) >= 12:
            width, height = struct.unpack("<ii", start[4:12])
            sizes.append((abs(width), abs(height) // 2))
    return sizes


def decoder_name(image: PIL.Image.Image) -> str:
    """Return the name of the decoder that an opened picture needs; empty if it is decoded already, or by its reader."""
    tiles: list[tuple[str, object]] = getattr(image, "tile", [])
    return tiles[0][0] if tiles else ""


def _stored(mode: str) -> int:
    return _STORED.get(mode, 4)


def _decoder_bytes(image: PIL.Image.Image, scans: int) -> float:
    if image.format in ("JPEG", "MPO"):
        if scans < 2 and not image.info.get("progressive"):
            return 0
        layers: list[tuple[int, int]] = [layer[1:3] for layer in getattr(image, "layer", [])]
        most = max((across * down for across, down in layers), default=1) or 1
        return sum(2 * max(1, across * down) / most for across, down in layers)
    if decoder_name(image) == "raw" and image.format in ("TIFF", "BMP", "DIB", "PPM"):
        return 0
    if image.format == "TIFF":  # one strip may be the whole picture, the coefficients of its JPEG, its pixels as RGBA
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        samples = bits if isinstance(bits, tuple) else (bits,)
        return sum(int(each) / 8 + 2 for each in samples) + 4
    return _DECODER.get(image.format or "", 0)
