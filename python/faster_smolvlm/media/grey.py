"""Greys of more than 8 bits: scaled to 8 if their depth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import MediaDecodeError

if TYPE_CHECKING:
    from typing import TypeAlias

    import PIL.Image

    Array: TypeAlias = npt.NDArray[np.uint8 | np.uint16 | np.uint32 | np.uint64 | np.int32]

_VALUES = 1 << 20  # of one step
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1


def is_deep_grey(image: PIL.Image.Image) -> bool:
    """Whether a PIL image holds greys of 16 bits, 32 bits or floating point (the modes I;16, I and F)."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def eight_bit_grey(image: PIL.Image.Image, label: str) -> PIL.Image.Image:
    """Scale greys of more than 8 bits to 0..255, mode L; other pictures are returned as they are.

    Pillow's own conversion, and so Transformers', clips them to 255, nearly all of them to white. The depth is that of
    the file: 65,535 for 16 bits, PGM and PNG, 4,095 for a TIFF of 12, and that of unsigned 32 bits. Raises
    MediaDecodeError for floating point, for signed integers and for an image of mode I that no file says a depth of.
    """
    if not is_deep_grey(image):
        return image
    from PIL import Image

    white = _white(image)
    if white is None:
        what = "floating-point greys" if image.mode == "F" else "integer greys of 32 bits or with a sign"
        raise MediaDecodeError(
            f"{label} holds {what} (mode {image.mode}), whose black and white are not known: scale them to 0..255 and "
            "pass an array of uint8. PIL.Image.open(…).convert('RGB') gives what Transformers reads: values clipped to "
            "0..255"
        )
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    step = max(1, _VALUES // width)
    for top in range(0, height, step):
        values = np.asarray(image.crop((0, top, width, min(height, top + step))))
        grey[top : top + step] = _scaled(values, white)
    scaled = Image.fromarray(grey)
    scaled.info, scaled.format = dict(image.info), image.format
    exif = image.getexif()
    if exif:
        scaled.info["exif"] = exif.tobytes()
    return scaled


def _white(image: PIL.Image.Image) -> int | None:
    """Return the value that stands for white; None if it is not known."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits, sample_format = (_first(tags.get(name)) for name in (_BITS_PER_SAMPLE, _SAMPLE_FORMAT))
    if image.mode == "F" or sample_format not in (None, _UNSIGNED):
        return None
    if image.mode != "I":
        return (1 << bits) - 1 if bits in (12, 16) else 0xFFFF
    if image.format in ("PPM", "PNG"):  # Pillow scales PGM to 16 bits, whatever its greatest value is
        return 0xFFFF
    return 0xFFFF_FFFF if bits == 32 else None


def _first(value: object) -> int | None:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _scaled(values: Array, white: int) -> Array:
    if white == 0xFFFF_FFFF:
        values = values.view(np.uint32)  # Pillow keeps them in int32
    wide = values.astype(np.uint64 if white > 0xFFFF else np.uint32)
    return (wide * 255 + white // 2) // white
