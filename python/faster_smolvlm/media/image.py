"""Pictures: opening within limits, decoding, upright RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .errors import MediaDecodeError, MediaLimitError, MediaTypeError
from .kinds import SOURCES, MediaSource, is_array, is_pil_image, is_source
from .limits import check_array, check_size
from .policy import MediaPolicy
from .source import Source, read_source

if TYPE_CHECKING:
    import PIL.Image

    from .kinds import Picture

P = TypeVar("P", bound="Picture")

_DEFAULT = MediaPolicy()


@overload
def load_image(source: MediaSource, policy: MediaPolicy | None = None) -> PIL.Image.Image: ...
@overload
def load_image(source: P, policy: MediaPolicy | None = None) -> P: ...
@overload
def load_image(source: object, policy: MediaPolicy | None = None) -> Picture: ...
def load_image(source: object, policy: MediaPolicy | None = None) -> object:
    """Return a picture for `source`, checked against `policy`.

    A path, http(s) URL, data URI, base64 string, bytes-like object or binary file is decoded to an upright RGB
    `PIL.Image.Image` (first frame, EXIF orientation applied, alpha dropped, 16-bit greys scaled to 8), as Transformers
    does. A PIL image, NumPy array or torch tensor is returned as it is. Raises a `MediaError` that names the source.
    """
    policy = policy or _DEFAULT
    if is_source(source):
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
        f"a picture may be a PIL image, NumPy array, torch tensor, {SOURCES}"
    )


def load_frames(sources: Sequence[object], policy: MediaPolicy) -> list[npt.NDArray[np.uint8]]:
    """Return the frames of a clip from the sources of its pictures, each uint8 (height, width, 3).

    Raises ValueError if their sizes differ, and a `MediaError` as `load_image`.
    """
    frames = [np.asarray(load_image(source, policy)) for source in sources]
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"the frames of a video must have one size, got {sorted({f.shape[:2] for f in frames})}")
    return frames


def decode_image(source: Source, policy: MediaPolicy) -> PIL.Image.Image:
    """Decode to an upright RGB picture."""
    from PIL import ExifTags, Image, ImageOps

    with source.open() as stream, _open(stream, source.label, policy) as image:
        check_size(image.size[1], image.size[0], source.label, policy)
        try:
            _reduce(image, policy.reduced_edge)
            image.load()
            # Each step copies the picture, even if it changes nothing.
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


def _open(stream: BinaryIO, label: str, policy: MediaPolicy) -> PIL.Image.Image:
    # Never by its path: Pillow would map the file into memory, and the process ends if it is cut meanwhile.
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
