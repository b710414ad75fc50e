"""Small picture files of every kind for which readers are known to differ, made from a fixed seed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

_RNG = np.random.default_rng(0)
_NOISE = _RNG.integers(0, 256, (37, 53, 4), np.uint8)
_SMOOTH = np.asarray(Image.fromarray(_NOISE[:5, :7, :3]).resize((53, 37), Image.Resampling.BICUBIC))
_DEEP = _RNG.integers(0, 65536, (9, 13, 4), np.uint16)


@dataclass
class GifPicture:
    """One picture of a GIF file; `size` is height and width."""

    size: tuple[int, int] = (6, 9)
    at: tuple[int, int] = (0, 0)
    transparent: int | None = None
    disposal: int = 0
    own_palette: bool = False
    interlaced: bool = False


def gif(
    pictures: list[GifPicture], screen: tuple[int, int] = (6, 9), background: int = 3, common: bool = True
) -> bytes:
    """Return a GIF file of noise with 8 colours; `screen` is height and width."""
    rng = np.random.default_rng(1)

    def palette() -> bytes:
        return rng.integers(0, 256, 24, np.uint8).tobytes()

    file = [b"GIF89a", struct.pack("<HHBBB", screen[1], screen[0], 0x82 if common else 0, background, 0)]
    file.append(palette() if common else b"")
    for picture in pictures:
        flags = picture.disposal << 2 | (picture.transparent is not None)
        file.append(b"!\xf9\x04" + struct.pack("<BHB", flags, 0, picture.transparent or 0) + b"\0")
        shape = 0x40 * picture.interlaced | (0x82 if picture.own_palette else 0)
        file.append(b"," + struct.pack("<HHHHB", *picture.at[::-1], *picture.size[::-1], shape))
        file.append(palette() if picture.own_palette else b"")
        file.append(_lzw(rng.integers(0, 8, picture.size[0] * picture.size[1])))
    return b"".join([*file, b";"])


def _lzw(numbers: np.ndarray) -> bytes:
    """Compress numbers below 8 as GIF wants it, always with codes of 4 bits: cleared before they would grow."""
    codes = [8]
    for start in range(0, len(numbers), 6):
        codes += [*map(int, numbers[start : start + 6]), 8]
    codes[-1] = 9
    bits = sum(code << 4 * place for place, code in enumerate(codes))
    data = bits.to_bytes(len(codes) // 2 + 1, "little")
    blocks = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"\3" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def png(colour: int, depth: int, samples: np.ndarray, *chunks: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """Return a PNG file of unsigned samples (height, width, channels), with further chunks before the pixels."""
    height, width = samples.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [
        b"\0" + row.astype(f">u{depth // 8}").tobytes()
        for top, left, down, right in passes
        for row in samples[top::down, left::right]
        if row.size
    ]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, parts))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    kind, content = part
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif(orientation: int, order: str = ">") -> bytes:
    """Return a block of EXIF, without its name, that holds an orientation."""
    name = b"MM" if order == ">" else b"II"
    return name + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def saved(kind: str, mode: str = "RGB", size: tuple[int, int] = (53, 37), **options: object) -> bytes:
    """Return the test picture as Pillow saves it."""
    picture = Image.fromarray(_NOISE if "A" in mode else _SMOOTH).convert(mode).resize(size)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(*blocks: bytes, **options: object) -> bytes:
    """Return a JPEG file with APP1 blocks."""
    plain = saved("JPEG", **options)
    return plain[:2] + b"".join(struct.pack(">BBH", 0xFF, 0xE1, len(b) + 2) + b for b in blocks) + plain[2:]


def _resampled(written: int, factors: int) -> bytes:
    """Return a JPEG file of a sampling that Pillow does not write, by the factors of its luma in hexadecimal.

    Its smallest units hold as many blocks as those of the sampling that is written, and there are as many of them.
    """
    file = bytearray(saved("JPEG", subsampling=written, size=(64, 64)))
    file[file.index(b"\xff\xc0") + 11] = factors
    return bytes(file)


_XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>'
_SEVERAL = [
    GifPicture(),
    GifPicture((3, 4), (1, 2), transparent=2, disposal=1),
    GifPicture((3, 4), (2, 1), transparent=5, disposal=1, own_palette=True),
    GifPicture((6, 9), transparent=1, disposal=3, interlaced=True),
    GifPicture((2, 2), (3, 3), disposal=2),
    GifPicture((2, 2), (4, 7)),
]

FILES: dict[str, Callable[[], bytes]] = {
    **{f"JPEG {name}": lambda n=n: saved("JPEG", subsampling=n) for n, name in enumerate(("4:4:4", "4:2:2", "4:2:0"))},
    "JPEG 4:4:0": lambda: _resampled(1, 0x12),
    "JPEG 4:1:1": lambda: _resampled(2, 0x41),
    "JPEG of a column of four": lambda: _resampled(2, 0x14),
    "JPEG progressive": lambda: saved("JPEG", progressive=True),
    "JPEG grey": lambda: saved("JPEG", "L"),
    "JPEG CMYK": lambda: saved("JPEG", "CMYK"),
    "JPEG CMYK, no Adobe": lambda: saved("JPEG", "CMYK").replace(b"Adobe", b"Adobf"),
    "JPEG without colour transform": lambda: saved("JPEG", keep_rgb=True),
    "JPEG restarts": lambda: saved("JPEG", restart_marker_blocks=2),
    "JPEG XMP turned": lambda: jpeg(_XMP),
    "JPEG XMP, then EXIF": lambda: jpeg(_XMP, b"Exif\0\0" + exif(6)),
    "JPEG EXIF twice": lambda: jpeg(b"Exif\0\0" + exif(1), b"Exif\0\0" + exif(6)),
    "JPEG EXIF cut": lambda: jpeg(b"Exif\0\0" + exif(6)[:15]),
    "JPEG EXIF II": lambda: jpeg(b"Exif\0\0" + exif(7, "<")),
    **{f"JPEG EXIF {n}": lambda n=n: jpeg(b"Exif\0\0" + exif(n)) for n in range(10)},
    **{f"PNG EXIF {n}": lambda n=n: png(2, 8, _NOISE[..., :3], (b"eXIf", exif(n))) for n in range(10)},
    "PNG EXIF as text": lambda: png(
        2, 8, _SMOOTH, (b"tEXt", b"Raw profile type exif\0\nexif\n26\n" + exif(6).hex().encode())
    ),
    "PNG XMP": lambda: png(2, 8, _SMOOTH, (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP)),
    "PNG, grey": lambda: png(0, 8, _NOISE[..., :1]),
    "PNG, LA": lambda: png(4, 8, _NOISE[..., :2]),
    "PNG, RGBA": lambda: png(6, 8, _NOISE),
    "PNG, tRNS": lambda: png(2, 8, _NOISE[..., :3], (b"tRNS", bytes(6))),
    "PNG, grey tRNS": lambda: png(0, 8, _NOISE[..., :1], (b"tRNS", bytes(2))),
    "PNG, gAMA": lambda: png(2, 8, _NOISE[..., :3], (b"gAMA", struct.pack(">I", 100000))),
    "PNG, interlaced": lambda: png(6, 8, _NOISE, interlaced=True),
    "PNG, palette": lambda: saved("PNG", "P"),
    "PNG, one bit": lambda: saved("PNG", "1"),
    **{
        f"PNG 16, {name}{', interlaced' * woven}": lambda c=colour, n=channels, w=woven: png(
            c, 16, _DEEP[..., :n], interlaced=w
        )
        for colour, channels, name in ((0, 1, "grey"), (2, 3, "RGB"), (4, 2, "LA"), (6, 4, "RGBA"))
        for woven in (False, True)
    },
    "PNG 16, turned": lambda: png(2, 16, _DEEP[..., :3], (b"eXIf", exif(6))),
    "WebP": lambda: saved("WEBP"),
    "WebP lossless, alpha": lambda: saved("WEBP", "RGBA", lossless=True),
    "WebP EXIF": lambda: saved("WEBP", exif=b"Exif\0\0" + exif(6)),
    "WebP XMP": lambda: saved("WEBP", xmp=_XMP),
    "WebP animated": lambda: saved("WEBP", save_all=True, append_images=[Image.new("RGB", (53, 37))]),
    "GIF": lambda: gif([GifPicture()]),
    "GIF, transparent": lambda: gif([GifPicture(transparent=2)]),
    "GIF, own palette": lambda: gif([GifPicture(transparent=2, own_palette=True)], common=False),
    "GIF, interlaced": lambda: gif([GifPicture((37, 53), interlaced=True)], (37, 53)),
    "GIF, larger than its screen": lambda: gif([GifPicture((8, 11))]),
    "GIF, smaller than its screen": lambda: gif([GifPicture((3, 4), (2, 3))]),
    "GIF, several": lambda: gif(_SEVERAL),
    "BMP": lambda: saved("BMP"),
    "TIFF": lambda: saved("TIFF"),
    "AVIF": lambda: saved("AVIF"),
    "PPM": lambda: saved("PPM"),
    "TIFF 16": lambda: _grey16("TIFF"),
    "PGM 16": lambda: b"P5\n13 9\n65535\n" + _DEEP[..., 0].astype(">u2").tobytes(),
}


def _grey16(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_DEEP[..., 0]).save(buffer, kind)
    return buffer.getvalue()
