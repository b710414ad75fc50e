"""Pictures: opening within limits, decoding, upright RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ..quoting import type_name
from .decode import decode_image
from .errors import MediaDecodeError, MediaError, MediaTypeError
from .grey import eight_bit_grey
from .kinds import SOURCES, MediaSource, is_array, is_pil_image, is_source, is_tensor
from .limits import check_array, check_clip, check_size
from .policy import MediaPolicy
from .rgb import rgb_of
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
        f"only a single or a list of entries is supported but got type={type_name(source)}; "
        f"a picture may be a PIL image, NumPy array, torch tensor, {SOURCES}"
    )


def load_frames(sources: Sequence[object], policy: MediaPolicy) -> list[npt.NDArray[np.generic]]:
    """Return the frames of a clip from the sources of its pictures, each (height, width, channels).

    Sources and PIL images of any mode become uint8 RGB, as single pictures do, greys of 16 bits scaled; arrays keep
    their values, grey ones among others get three channels. Raises ValueError if sizes or channels differ, and a
    `MediaError` that names the frame, also for PIL images of mode I and F, whose depth is not known.
    """
    frames = []
    for index, source in enumerate(sources):
        try:
            frames.append(_frame(load_image(source, policy), index))
            if index == 0:
                check_clip(len(sources) * frames[0].nbytes, f"a clip of {len(sources)} such frames", policy)
        except MediaError as error:
            raise type(error)(f"frame {index}: {error}") from None
    if any(frame.shape[-1] == 3 for frame in frames):
        frames = [np.repeat(frame, 3, axis=-1) if frame.shape[-1] == 1 else frame for frame in frames]
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) > 1:
        raise ValueError(
            f"the frames of a video must have one size, got (height, width, channels) {', '.join(map(str, shapes[:4]))}"
        )
    return frames


def joined(frames: list[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """Return frames of one shape as one array; the list is emptied on the way, so that none is held twice."""
    out = np.empty((len(frames), *frames[0].shape), np.result_type(*{frame.dtype for frame in frames}))
    for index in reversed(range(len(frames))):
        out[index] = frames.pop()
    return out


def _frame(picture: Picture, index: int) -> npt.NDArray[np.generic]:
    if is_pil_image(picture):
        return np.asarray(rgb_of(eight_bit_grey(picture, "the PIL image")))
    array: npt.NDArray[np.generic] = picture.detach().cpu().numpy() if is_tensor(picture) else picture
    if array.ndim == 2:
        return np.expand_dims(array, -1)
    if array.ndim != 3:
        raise ValueError(f"frame {index}: a frame has two or three dimensions, got an array of shape {array.shape}")
    if array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        return np.moveaxis(array, 0, -1)
    return array
