"""Pictures: opening within limits, decoding, upright RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .decode import decode_image
from .errors import MediaDecodeError, MediaTypeError
from .kinds import SOURCES, MediaSource, is_array, is_pil_image, is_source
from .limits import check_array, check_clip, check_size
from .policy import MediaPolicy
from .source import read_source

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
    `PIL.Image.Image` (first frame, EXIF orientation applied, alpha dropped), as Transformers does. Greys of 16 bits and
    of unsigned 32 are scaled to 8; if the file does not say what is white (floating point, signed integers), it is
    refused. Transformers' reader clips all of them to 0..255, as ``PIL.Image.open(…).convert("RGB")`` does.

    A PIL image, NumPy array or torch tensor is returned as it is; a PIL image that is not decoded yet is, without the
    limits on scans, time and memory, since its caller opened it. Raises a `MediaError` that names the source.
    """
    policy = policy or _DEFAULT
    if is_source(source):
        return decode_image(read_source(source, policy), policy)
    if is_pil_image(source):
        label = f"PIL image (mode {source.mode})"
        check_size(source.size[1], source.size[0], label, policy)
        try:
            source.load()
        except MemoryError:
            raise
        except Exception:  # its file is read only now; decoders raise anything
            raise MediaDecodeError(f"{label} cannot be decoded: its file is broken, truncated or closed") from None
        return source
    if is_array(source):
        if source.ndim >= 2:
            check_array(source.shape, policy)
        return source
    raise MediaTypeError(
        f"only a single or a list of entries is supported but got type={type(source)!r}; "
        f"a picture may be a PIL image, NumPy array, torch tensor, {SOURCES}"
    )


def load_frames(sources: Sequence[object], policy: MediaPolicy) -> npt.NDArray[np.uint8]:
    """Return the frames of a clip from the sources of its pictures, uint8 (frames, height, width, 3).

    Raises ValueError if their sizes differ, and a `MediaError` as `load_image` and for more bytes than a clip may hold.
    """
    frames: npt.NDArray[np.uint8] | None = None
    for index, source in enumerate(sources):
        frame = np.asarray(load_image(source, policy))
        if frames is None:
            check_clip(len(sources) * frame.nbytes, f"a clip of {len(sources)} frames", policy)
            frames = np.empty((len(sources), *frame.shape), frame.dtype)
        if frame.shape != frames.shape[1:]:
            sizes = sorted({frame.shape[:2], frames.shape[1:3]})
            raise ValueError(f"the frames of a video must have one size, got {sizes}; frame {index} is the first other")
        frames[index] = frame
    if frames is None:
        raise ValueError("a clip needs one frame or more, got an empty list")
    return frames
