"""From a decoded picture to a (channels, height, width) array."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..media.grey import is_deep_grey
from ..media.kinds import LAST, channel_layout, is_pil_image, is_tensor
from ..media.rgb import rgb_of
from .arithmetic import Array, BFloat16
from .call_settings import plain

if TYPE_CHECKING:
    from typing import TypeGuard

    import PIL.Image

    from ..media.kinds import AnyArray, Picture

_LOG = logging.getLogger(__name__)
_CHANNELS = (1, 3, 4)


def infer_layout(shape: tuple[int, ...]) -> str:
    """Which of three dimensions holds the channels; the first wins, with a warning, if both could."""
    if shape[0] in _CHANNELS and shape[-1] in _CHANNELS:
        _LOG.warning(
            "The channel dimension is ambiguous. Got image shape %s. Assuming channels are the first dimension. "
            "Use the input_data_format parameter to assign the channel dimension.",
            tuple(shape),
        )
    layout = channel_layout(shape, _CHANNELS)
    if layout is not None:
        return layout
    raise ValueError(f"Unable to infer channel dimension format: none of {_CHANNELS} channels in shape {tuple(shape)}")


def to_planes(
    image: Picture, *, do_convert_rgb: bool | None, input_data_format: object, rgba: Callable[[Array], Array]
) -> Array:
    """Return one picture as a (channels, height, width) array, three channels with `do_convert_rgb`.

    `rgba` composes a (4, height, width) array onto white. Raises ValueError for pictures without pixels, of unusable
    type, or that hold NaN or infinity.
    """
    if is_pil_image(image):
        planes = pil_planes(image, do_convert_rgb)
    else:
        planes = _array_planes(image, input_data_format)
        if do_convert_rgb and planes.shape[0] == 1:
            planes = np.broadcast_to(planes, (3, *planes.shape[1:]))
        elif do_convert_rgb and planes.shape[0] == 4:
            planes = rgba(planes)
    if 0 in planes.shape:
        raise ValueError(f"the picture has no pixels (shape {planes.shape}); height and width must be at least 1")
    return planes


class PillowPixels:
    """A PIL image of mode RGB, whose memory native code reads; to NumPy it is uint8 (3, height, width)."""

    dtype = np.dtype(np.uint8)

    def __init__(self, image: PIL.Image.Image) -> None:
        image.load()
        self.image = image
        self.shape = (3, image.height, image.width)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        planes: Array = np.asarray(self.image, dtype=dtype).transpose(2, 0, 1)
        return planes


def is_plain_rgb(image: Picture) -> TypeGuard[PIL.Image.Image]:
    """Whether `image` is a PIL image with pixels that need no conversion."""
    return is_pil_image(image) and image.mode == "RGB" and image.info.get("transparency") is None and all(image.size)


def pil_planes(image: PIL.Image.Image, do_convert_rgb: bool | None) -> Array:
    """The pixels of a PIL image; conversion composes transparency onto white, and clips deep greys, with a warning."""
    if do_convert_rgb and is_deep_grey(image):
        warnings.warn(
            f"the grey values of a PIL image of mode {image.mode} are clipped to 0..255, as Transformers does, which "
            "makes most of them white; pass its path or bytes to have them scaled",
            stacklevel=2,
        )
    if do_convert_rgb:
        image = rgb_of(image)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _array_planes(image: AnyArray, input_data_format: object) -> Array:
    array = _to_numpy(image)
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise ValueError(f"a picture has two or three dimensions, got an array of shape {array.shape}")
    layout = plain(input_data_format)
    if layout is None and 0 in array.shape:
        raise ValueError(f"the picture has no pixels (shape {array.shape}); height and width must be at least 1")
    if (layout or infer_layout(array.shape)) == LAST:
        array = array.transpose(2, 0, 1)
    return array


def _to_numpy(image: AnyArray) -> Array:
    if is_tensor(image):
        image = image.detach().cpu()
        bfloat16 = str(image.dtype) == "torch.bfloat16"
        array: Array = image.float().numpy().view(BFloat16) if bfloat16 else image.numpy()
    else:
        array = np.asarray(image)
    if array.dtype.kind not in "buif" or array.dtype.name in ("uint16", "uint32", "uint64", "longdouble"):
        raise ValueError(
            f"pictures of {array.dtype} values are not supported; pass uint8 in 0..255 (16-bit values divided by 257) "
            "or floats"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("the picture holds NaN or infinite values")
    return array


def warn_if_scaled(planes: Array, do_rescale: bool | None) -> None:
    """Warn about a picture that was scaled to 0..1 and is about to be scaled again."""
    if do_rescale and planes.dtype.kind in "bf" and planes.min() >= 0 and planes.max() <= 1:
        warnings.warn(
            "a picture with values in 0..1 is rescaled again and becomes almost black; pass do_rescale=False",
            stacklevel=2,
        )


def pad_planes(planes: Array, padded_size: tuple[int, int], fill: int) -> tuple[Array, Array]:
    """Pad (channels, height, width) at the right and at the bottom.

    Returns it and the mask, int64 (height, width), 1 on the picture. Raises ValueError for a smaller size.
    """
    height, width = planes.shape[-2:]
    below, right = padded_size[0] - height, padded_size[1] - width
    if below < 0 or right < 0:
        raise ValueError(
            "Padding dimensions are negative. Please make sure that the padded size is larger than the original "
            f"size. Got padded size: {padded_size}, original size: {(height, width)}."
        )
    mask = np.zeros(padded_size, dtype=np.int64)
    mask[:height, :width] = 1
    pads = [(0, 0)] * (planes.ndim - 2) + [(0, below), (0, right)]
    return np.pad(planes, pads, constant_values=fill), mask
