"""All pictures of a GIF file, drawn as Transformers' picture reader (torchvision) draws them.

Each picture is decoded by itself at the gate, by its numbers in the palette. Unlike Pillow and browsers, torchvision
paints the background colour behind the first picture, and never takes a picture back to the one before the last.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...media.decode import decode_image
from ...media.errors import MediaDecodeError, MediaLimitError
from ...media.limits import check_size
from ...media.policy import MediaPolicy
from ...media.source import Source

Palette = npt.NDArray[np.uint8]
# A palette in which each colour is the grey of its own number.
_NUMBERS = bytes(value for number in range(256) for value in (number,) * 3)
_KEEP = (0, 1, 3)  # the disposals with which the picture before stays


@dataclass(frozen=True)
class _Picture:
    left: int
    top: int
    width: int
    height: int
    palette: Palette | None
    keeps: bool
    transparent: int | None
    encoded: bytes


def read_gif(source: Source, policy: MediaPolicy) -> npt.NDArray[np.uint8]:
    """Return uint8 (3, height, width) of a GIF with one picture, (pictures, 3, height, width) of one with several.

    Raises a `MediaError`; `MediaPolicy.max_frames` is the limit on its pictures, `max_output_bytes` on their bytes.
    """
    data = source.data or b""
    width, height, common, background = _screen(data, source.label)
    pictures: list[_Picture] = []
    for picture in _pictures(data, source.label, common):
        pictures.append(picture)
        if len(pictures) > policy.max_frames:
            raise MediaLimitError(
                f"{source.label} has more than {policy.max_frames} pictures; raise MediaPolicy.max_frames to allow it"
            )
    if not pictures:
        raise MediaDecodeError(f"{source.label} is a GIF file without pictures")
    width, height = max(width, pictures[0].width), max(height, pictures[0].height)
    check_size(height, width, source.label, policy)
    if (needed := len(pictures) * width * height * 3) > policy.max_output_bytes:
        raise MediaLimitError(
            f"{source.label} has {len(pictures)} pictures of {needed} bytes together; raise "
            "MediaPolicy.max_output_bytes to allow it"
        )
    drawn = np.empty((len(pictures), height, width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        drawn[index] = drawn[index - 1] if index and picture.keeps else background
        _draw(drawn[index], picture, source.label, policy)
    first = np.ascontiguousarray(drawn.transpose(0, 3, 1, 2))
    return first[0] if len(pictures) == 1 else first


def _screen(data: bytes, label: str) -> tuple[int, int, Palette | None, Palette]:
    """Return width, height, common palette and background colour."""
    if len(data) < 13:
        raise MediaDecodeError(f"{label} is a truncated GIF file")
    width, height, flags, background = struct.unpack_from("<HHBB", data, 6)
    common = _palette(data, 13, flags)
    black = np.zeros(3, np.uint8)
    return width, height, common, black if common is None or background >= len(common) else common[background]


def _palette(data: bytes, at: int, flags: int) -> Palette | None:
    if not flags & 0x80:
        return None
    values = np.frombuffer(data[at : at + 3 * (2 << (flags & 7))], np.uint8)
    return values[: len(values) // 3 * 3].reshape(-1, 3)


def _pictures(data: bytes, label: str, common: Palette | None) -> Iterator[_Picture]:
    at = 13 + (0 if common is None else common.size)
    keeps, transparent = True, None
    while at < len(data) and data[at] != 0x3B:
        if data[at] == 0x21:
            if data[at + 1 : at + 3] == b"\xf9\x04" and at + 7 <= len(data):
                keeps = (data[at + 3] >> 2 & 7) in _KEEP
                transparent = data[at + 6] if data[at + 3] & 1 else None
            at = _after_blocks(data, at + 2, label)
        elif data[at] == 0x2C and at + 10 <= len(data):
            left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at + 1)
            own = _palette(data, at + 10, flags)
            start = at + 10 + (0 if own is None else own.size)
            at = _after_blocks(data, start + 1, label)
            encoded = _alone(width, height, flags & 0x40, data[start:at])
            yield _Picture(left, top, width, height, common if own is None else own, keeps, transparent, encoded)
            keeps, transparent = True, None
        else:
            raise MediaDecodeError(f"{label} is a broken GIF file")


def _after_blocks(data: bytes, at: int, label: str) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    if at >= len(data):
        raise MediaDecodeError(f"{label} is a truncated GIF file")
    return at + 1


def _alone(width: int, height: int, interlaced: int, blocks: bytes) -> bytes:
    """Return a GIF file of one picture in grey, whose values are its numbers in the palette."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + _NUMBERS
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, interlaced) + blocks + b";"


def _draw(canvas: npt.NDArray[np.uint8], picture: _Picture, label: str, policy: MediaPolicy) -> None:
    if picture.palette is None:
        raise MediaDecodeError(f"{label} is a broken GIF file: it has no palette")
    numbers = np.asarray(decode_image(Source(label, data=picture.encoded), policy))[..., 0]
    target = canvas[picture.top : picture.top + picture.height, picture.left : picture.left + picture.width]
    numbers = numbers[: target.shape[0], : target.shape[1]]
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(picture.palette)] = picture.palette
    shown = np.full(numbers.shape, True) if picture.transparent is None else numbers != picture.transparent
    target[shown] = colours[numbers[shown]]
