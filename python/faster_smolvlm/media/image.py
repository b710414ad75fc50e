"""Pictures: opening within limits, decoding, upright RGB."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MediaDecodeError, MediaLimitError, MediaTypeError
from .policy import MediaPolicy
from .source import Source, read_source

if TYPE_CHECKING:
    import PIL.Image

_DEFAULT = MediaPolicy()


def load_image(source: Any, policy: MediaPolicy | None = None) -> Any:
    """Return a picture for `source`, checked against `policy`.

    A path, http(s) URL, data URI, base64 string or bytes is decoded to an upright RGB `PIL.Image.Image` (first frame,
    EXIF orientation applied, alpha dropped, 16-bit greys scaled to 8), as Transformers does. A PIL image, NumPy array
    or torch tensor is returned as it is. Raises a `MediaError` that names the source.
    """
    policy = policy or _DEFAULT
    if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)):
        return decode_image(read_source(source, policy), policy)
    if is_pil_image(source):
        check_size(source.size[1], source.size[0], f"PIL image (mode {source.mode})", policy)
        return source
    if is_array(source):
        if source.ndim >= 2:
            check_array(source.shape, policy)
        return source
    raise MediaTypeError(
        f"only a single or a list of entries is supported but got type={type(source)!r}; "
        "a picture may be a PIL image, NumPy array, torch tensor, path, http(s) URL, data URI, base64 string or bytes"
    )


def is_pil_image(value: Any) -> bool:
    """Whether `value` is a PIL image; Pillow is not imported for the question."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor; torch is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value: Any) -> bool:
    """Whether `value` is a NumPy array or a torch tensor."""
    return isinstance(value, np.ndarray) or is_tensor(value)


def check_size(height: int, width: int, label: str, policy: MediaPolicy) -> None:
    """Refuse a picture above the limits."""
    if max(height, width) > policy.max_side:
        raise MediaLimitError(
            f"{label} is {width}×{height} pixels, a side may have {policy.max_side}; "
            "raise MediaPolicy.max_side to allow it"
        )
    if height * width > policy.max_pixels:
        raise MediaLimitError(
            f"{label} has {width}×{height} = {width * height} pixels, allowed are {policy.max_pixels}; "
            "raise MediaPolicy.max_pixels to allow it"
        )


def check_array(shape: tuple[int, ...], policy: MediaPolicy) -> None:
    """Refuse an array whose last three dimensions hold more pixels than allowed, whatever the layout."""
    sides = sorted(int(side) for side in shape[-3:])
    check_size(sides[-2], sides[-1], f"array of shape {tuple(shape)}", policy)


def decode_image(source: Source, policy: MediaPolicy) -> PIL.Image.Image:
    """Decode to an upright RGB picture."""
    from PIL import ExifTags, Image, ImageOps

    stream: Any = source.path if source.data is None else io.BytesIO(source.data)
    with _open(stream, source.label, policy) as image:
        check_size(image.size[1], image.size[0], source.label, policy)
        try:
            _reduce(image, policy.reduced_edge)
            image.load()
            # Each step copies the picture, also where it changes nothing.
            upright = _eight_bits(image)
            if upright.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                upright = ImageOps.exif_transpose(upright)
            return upright if upright.mode == "RGB" else upright.convert("RGB")
        except Image.DecompressionBombError:
            raise _bomb(source.label) from None
        except Exception:  # decoders raise anything; what they say may hold addresses
            raise MediaDecodeError(f"{source.label} is a broken or truncated {image.format} file") from None


def _reduce(image: PIL.Image.Image, edge: int | None) -> None:
    """Let a JPEG decoder leave out what a picture of this longest edge does not show."""
    if edge is None or image.format != "JPEG":
        return
    width, height = image.size
    factor = next((factor for factor in (8, 4, 2) if max(width, height) >= factor * edge), 1)
    if factor > 1:
        image.draft(image.mode, (max(1, width // factor), max(1, height // factor)))


def _open(stream: Any, label: str, policy: MediaPolicy) -> PIL.Image.Image:
    from PIL import Image

    Image.init()
    formats = [name for name in policy.formats if name in Image.OPEN]
    try:
        return Image.open(stream, formats=formats)
    except Image.DecompressionBombError:
        raise _bomb(label) from None
    except Exception:  # as above
        raise MediaDecodeError(
            f"{label} is not a picture, or not in an allowed format ({', '.join(formats)})"
        ) from None


def _bomb(label: str) -> MediaLimitError:
    return MediaLimitError(
        f"{label} has more pixels than Pillow allows; raise PIL.Image.MAX_IMAGE_PIXELS and MediaPolicy.max_pixels "
        "to allow it"
    )


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Scale 16-bit greys to 8 bits; Pillow's own conversion would clip nearly all of them to white."""
    if not image.mode.startswith("I;16"):
        return image
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    scaled = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    scaled.info, scaled.format = dict(image.info), image.format
    exif = image.getexif()
    if exif:
        scaled.info["exif"] = exif.tobytes()
    return scaled
