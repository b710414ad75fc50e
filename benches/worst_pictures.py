"""Pictures that cost a decoder as much as a file of their size can: what `bench_worst_media` reads.

Each maker gets the bytes that the file may have. Most are valid, or valid up to where the cost arises.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from PIL import Image

SIDE = 8000  # of the pictures that have the pixels of the default `max_pixels`


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the encoded picture."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey(side: int = SIDE, mode: str = "L") -> Image.Image:
    """Return a picture that compresses to nearly nothing."""
    return Image.new(mode, (side, side), 128 if mode in "LP" else (90, 120, 150, 180)[: len(mode)])


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    """Return a picture that does not compress."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze())


def filled(head: bytes, piece: bytes, tail: bytes, size: int) -> bytes:
    """Return `head`, `piece` as often as `size` allows, and `tail`."""
    return head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


# --- JPEG ---


def segment(marker: int, payload: bytes) -> bytes:
    """Return a marker segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def progressive(side: int = SIDE, mode: str = "RGB") -> bytes:
    """Return a progressive JPEG of one colour."""
    return saved(grey(side, mode), "JPEG", progressive=True, quality=50, subsampling=0)


def last_scan(jpeg: bytes) -> bytes:
    """Return the last scan of a progressive JPEG, its marker included."""
    return jpeg[jpeg.rindex(b"\xff\xda") : jpeg.rindex(b"\xff\xd9")]


def jpeg_of_scans(size: int, side: int = SIDE, scans: int | None = None) -> bytes:
    """Return a JPEG whose last, empty refinement is repeated: `scans` times, or to fill `size` bytes."""
    jpeg = progressive(side)
    scan, head = last_scan(jpeg), jpeg[: jpeg.rindex(b"\xff\xd9")]
    return filled(head, scan, b"\xff\xd9", size if scans is None else len(head) + scans * len(scan) + 2)


def jpeg_with(segments: Callable[[int], bytes], size: int) -> bytes:
    """Return a small JPEG that begins with segments of `size` bytes in all."""
    jpeg = saved(grey(64, "RGB"), "JPEG")
    return jpeg[:2] + segments(size - len(jpeg)) + jpeg[2:]


def exif_block(size: int) -> bytes:
    """Return EXIF data of `size` bytes, in which every tag holds most of it."""
    tags = min(5000, size // 40)
    data = size - 14 - 12 * tags
    entries = b"".join(struct.pack(">HHII", 0x200 + tag, 7, data, 14 + 12 * tags) for tag in range(tags))
    return b"MM\0*" + struct.pack(">IH", 8, tags) + entries + b"\0" * (4 + data)


def exif_bomb_segments(size: int) -> bytes:
    """Return APP1 segments that Pillow joins to one EXIF block, in which every tag holds most of it."""
    block = exif_block(size * 95 // 100)
    pieces = [block[at : at + 65000] for at in range(0, len(block), 65000)]
    return b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces)


# --- PNG ---


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int, depth: int, colour: int, rows: Iterator[bytes], interlace: int = 0, middle: bytes = b"") -> bytes:
    """Return a PNG from its filtered rows; `middle` is chunks before the data."""
    pack = zlib.compressobj(9)
    data = b"".join(map(pack.compress, rows)) + pack.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def flat_rows(side: int, row_bytes: int, filter_type: int = 0) -> Iterator[bytes]:
    """Yield rows of one value."""
    return itertools.repeat(bytes([filter_type]) + b"\x01" * row_bytes, side)


def saved_interlaced(side: int) -> bytes:
    """Return an interlaced PNG of one value."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = (
        b"\0" + b"\1" * (3 * len(range(x, side, step_x)))
        for x, y, step_x, step_y in passes
        for _ in range(y, side, step_y)
    )
    return png(side, 8, 2, rows, interlace=1)


def png_with(piece: bytes, size: int) -> bytes:
    """Return a small PNG with one chunk repeated before its data."""
    return png(8, 8, 0, flat_rows(8, 8), middle=piece * ((size - 200) // len(piece)))


def exif_as_text() -> bytes:
    """Return EXIF in the form in which ImageMagick writes it, zipped."""
    text = "\nexif\n  0\n" + exif_block(480_000).hex()
    return chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text.encode(), 9))


def png_of_many_data_chunks(size: int) -> bytes:
    """Return a PNG whose data comes one byte a chunk."""
    raw = noise(1000, 1000)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(raw)), 1)[: size // 13]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1000, 1000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(b"IDAT", bytes([byte])) for byte in data)


# --- GIF, BMP, WEBP ---


def gif_with(piece: bytes, size: int) -> bytes:
    """Return a small GIF with one block repeated before its picture."""
    gif = saved(grey(64), "GIF")
    start = gif.index(b",\0\0\0\0")
    return filled(gif[:start], piece, gif[start:], size)


def gif_of_one_comment(size: int) -> bytes:
    """Return a GIF whose comment fills it in sub-blocks."""
    gif = saved(grey(64), "GIF")
    start = gif.index(b",\0\0\0\0")
    return filled(gif[:start] + b"!\xfe", b"\xff" + b"c" * 255, b"\0" + gif[start:], size)


def gif_of_frames(size: int) -> bytes:
    """Return a GIF of as many frames as fit, each of one pixel on a large canvas."""
    frame = b"!\xf9\x04\x04\x01\0\0\0" + b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0"
    gif = saved(grey(64), "GIF")
    start = gif.index(b",\0\0\0\0")
    head = gif[:6] + struct.pack("<HH", SIDE, SIDE) + gif[10:start]
    return filled(head, frame, b";", size)


def bmp_of_runs(size: int) -> bytes:
    """Return a BMP whose runs have one pixel each."""
    side = min(SIDE, int((size / 2.2) ** 0.5))
    palette = bytes(range(256)) * 4
    data = (b"\x01\x07" * side + b"\0\0") * side + b"\0\x01"
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(data), 2835, 2835, 256, 0)
    head = struct.pack("<2sIHHI", b"BM", 54 + 1024 + len(data), 0, 0, 54 + 1024)
    return head + info + palette + data


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WEBP of these chunks."""
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def extended(side: int, flags: int) -> tuple[bytes, bytes]:
    """Return the chunk VP8X of a WEBP."""
    return b"VP8X", bytes([flags, 0, 0, 0]) + struct.pack("<I", side - 1)[:3] * 2


def webp_of_frames(size: int, side: int) -> bytes:
    """Return an animation of as many frames as fit, each of one pixel."""
    still = saved(grey(1, "RGB"), "WEBP", lossless=True)[12:]
    frame = b"\0" * 12 + b"\x0a\0\0\0" + still
    count = (size - 100) // (len(frame) + 8)
    return riff(extended(side, 2), (b"ANIM", b"\0" * 6), *[(b"ANMF", frame)] * count)


def webp_with(name: bytes, data: bytes, count: int, flags: int = 0) -> bytes:
    """Return a small WEBP followed by a chunk, repeated."""
    still = saved(grey(64, "RGB"), "WEBP")
    return riff(extended(64, flags), (b"VP8 ", still[20:]), *[(name, data)] * count)


def webp_of_noise(size: int, **options: object) -> bytes:
    """Return the largest WEBP of noise that fits."""
    for side in (5400, 4500, 3600, 2700, 1800):
        try:
            data = saved(noise(side, side), "WEBP", method=0, **options)
        except ValueError:  # too much detail for the format
            continue
        if len(data) <= size:
            return data
    raise ValueError(f"no WEBP of noise has {size} bytes or less")


def rotated(kind: str, side: int) -> bytes:
    """Return a large picture that has to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(grey(side, "RGB"), kind, exif=exif.tobytes())


_ZIPPED = zlib.compress(bytes(1_000_000), 9)

WORST: dict[str, Callable[[int], bytes]] = {
    "JPEG, empty scans to the last byte": jpeg_of_scans,
    "JPEG, 250 scans of 64 Mpx": partial(jpeg_of_scans, scans=238),
    "JPEG, 250 scans of 30 Mpx": partial(jpeg_of_scans, side=5500, scans=238),
    "JPEG, 64 Mpx": lambda size: saved(grey(SIDE, "RGB"), "JPEG", quality=95, subsampling=0),
    "JPEG, 20 MB of noise": lambda size: saved(noise(3400, 3400), "JPEG", quality=90, subsampling=0)[:size],
    "JPEG, progressive 20 MB of noise": lambda size: saved(noise(3400, 3400), "JPEG", quality=90, progressive=True),
    "JPEG, progressive 64 Mpx": lambda size: progressive(),
    "JPEG, progressive CMYK 64 Mpx": lambda size: progressive(mode="CMYK"),
    "JPEG, 64 Mpx to be turned": lambda size: rotated("JPEG", SIDE),
    "JPEG, 25 Mpx to be turned": lambda size: rotated("JPEG", 5000),
    "JPEG, small comments": partial(jpeg_with, lambda size: segment(0xFE, b"") * (size // 4)),
    "JPEG, small EXIF segments": partial(jpeg_with, lambda size: segment(0xE1, b"Exif\0\0") * (size // 10)),
    "JPEG, EXIF whose tags overlap": partial(jpeg_with, lambda size: segment(0xE1, b"Exif\0\0" + exif_block(60_000))),
    "JPEG, joined EXIF whose tags overlap": partial(jpeg_with, exif_bomb_segments),
    "JPEG, fill bytes": partial(jpeg_with, lambda size: b"\xff" * size),
    "JPEG, bytes between segments": partial(jpeg_with, lambda size: segment(0xFE, b"") + b"\0" * (size - 4)),
    "JPEG, Photoshop resources": partial(
        jpeg_with, lambda size: segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000) * (size // 60_018)
    ),
    "PNG, 64 Mpx": lambda size: png(SIDE, 8, 2, flat_rows(SIDE, SIDE * 3)),
    "PNG, 64 Mpx, 16 bits RGBA, Paeth": lambda size: png(SIDE, 16, 6, flat_rows(SIDE, SIDE * 8, 4)),
    "PNG, 64 Mpx, 16 bits grey": lambda size: png(SIDE, 16, 0, flat_rows(SIDE, SIDE * 2)),
    "PNG, 64 Mpx, 1 bit": lambda size: png(SIDE, 1, 0, flat_rows(SIDE, SIDE // 8)),
    "PNG, 64 Mpx, interlaced": lambda size: saved_interlaced(SIDE),
    "PNG, 20 MB of noise": lambda size: saved(noise(2600, 2600), "PNG", compress_level=1)[:size],
    "PNG, zipped profiles": partial(png_with, chunk(b"iCCP", b"x\0\0" + _ZIPPED)),
    "PNG, zipped texts": partial(png_with, chunk(b"zTXt", b"x\0\0" + _ZIPPED)),
    "PNG, zipped international texts": partial(png_with, chunk(b"iTXt", b"x\0\1\0\0\0" + _ZIPPED)),
    "PNG, small chunks": partial(png_with, chunk(b"prVt", b"")),
    "PNG, small texts": partial(png_with, chunk(b"tEXt", b"a\0b")),
    "PNG, data a byte a chunk": png_of_many_data_chunks,
    "PNG, EXIF whose tags overlap": lambda size: png(
        8, 8, 0, flat_rows(8, 8), middle=chunk(b"eXIf", exif_block(size - 500))
    ),
    "PNG, EXIF as zipped text": lambda size: png(8, 8, 0, flat_rows(8, 8), middle=exif_as_text()),
    "GIF, 64 Mpx": lambda size: saved(grey(), "GIF"),
    "GIF, noise": lambda size: saved(noise(3800, 3800, 1), "GIF")[:size],
    "GIF, one long comment": gif_of_one_comment,
    "GIF, many comments": partial(gif_with, b"!\xfe\x01c\0"),
    "GIF, many applications": partial(gif_with, b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"),
    "GIF, many frames": gif_of_frames,
    "BMP, 64 Mpx of one bit": lambda size: saved(Image.new("1", (SIDE, SIDE)), "BMP"),
    "BMP, 20 MB": lambda size: saved(noise(2600, 2600), "BMP"),
    "BMP, runs of one pixel": bmp_of_runs,
    "WEBP, 64 Mpx": lambda size: saved(grey(SIDE, "RGB"), "WEBP", method=0),
    "WEBP, 64 Mpx, lossless": lambda size: saved(grey(SIDE, "RGB"), "WEBP", lossless=True, method=0),
    "WEBP, 20 MB of noise": partial(webp_of_noise, quality=95),
    "WEBP, 20 MB of noise, lossless": partial(webp_of_noise, lossless=True, quality=0),
    "WEBP, many frames on 64 Mpx": partial(webp_of_frames, side=SIDE),
    "WEBP, many frames": partial(webp_of_frames, side=64),
    "WEBP, small chunks": lambda size: webp_with(b"none", b"", size // 8 - 100),
    "WEBP, EXIF whose tags overlap": lambda size: webp_with(b"EXIF", exif_block(size - 1000), 1, flags=8),
    "WEBP, 20 Mpx to be turned": lambda size: rotated("WEBP", 4500),
}
