"""The image processor of SmolVLM with the arithmetic of torchvision, which is Transformers' default."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .. import _rust
from .arithmetic import Array, Numbers, Torch
from .call_settings import KEEP_SIZE, Settings, target_of_size
from .image_processing_base import SmolVLMImageProcessorBase
from .output import Wrap, as_array, like, tensor_wrap, to_tensor
from .planes import pad_planes, to_planes
from .size import Size

if TYPE_CHECKING:
    import torch

    from ..media.kinds import AnyArray, Picture

T = TypeVar("T", bound="AnyArray")


class SmolVLMImageProcessor(SmolVLMImageProcessorBase):
    """Pictures to frames, bit-equal to Transformers' class of this name; neither torch nor torchvision computes.

    Arrays are returned as torch tensors, as there, unless `return_tensors="np"` asks for NumPy or torch is not
    installed. The single steps below take and return tensors (…, channels, height, width), or arrays for arrays.
    """

    backend = "torchvision"
    arithmetic = Torch()

    def process_image(
        self, image: Picture, do_convert_rgb: bool | None = None, input_data_format: object = None, **kwargs: object
    ) -> torch.Tensor:
        """Return one picture as a (channels, height, width) tensor."""
        planes = to_planes(
            image, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, rgba=self.arithmetic.rgba
        )
        return to_tensor(planes)

    def resize(self, image: T, size: Size, resample: int | None = None, **kwargs: object) -> T:
        """Resize to the longest edge of `size`, or to its height and width."""
        sizes = _rust.ImageSizes(tile=1, split=True, **target_of_size(size))
        (height, width), *_ = _rust.layout(*image.shape[-2:], sizes=sizes)
        return self._each(image, lambda planes: self.arithmetic.resize(planes, height, width, resample))

    def resize_for_vision_encoder(self, image: T, vision_encoder_max_size: int, resample: int | None = None) -> T:
        """Raise both sides to multiples of `vision_encoder_max_size`."""
        sizes = _rust.ImageSizes(tile=vision_encoder_max_size, split=True, **KEEP_SIZE)
        _, (height, width), *_ = _rust.layout(*image.shape[-2:], sizes=sizes)
        return self._each(image, lambda planes: self.arithmetic.resize(planes, height, width, resample))

    def split_images(
        self, images: T, max_image_size: dict[str, int], resample: int | None = None
    ) -> tuple[T, list[int], list[int]]:
        """Cut (batch, channels, height, width) into tiles and a global view: (frames, rows, cols)."""
        tile = max_image_size["longest_edge"]
        pixels = as_array(images)
        batch, channels, height, width = pixels.shape
        if height <= tile and width <= tile:
            return like(pixels[:, None], images), [0] * batch, [0] * batch
        rows, cols = height // tile, width // tile
        cut = pixels[..., : rows * tile, : cols * tile].reshape(batch, channels, rows, tile, cols, tile)
        tiles = cut.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * cols, channels, tile, tile)
        view = self.resize(pixels, {"height": tile, "width": tile}, resample)[:, None]
        return like(np.concatenate((tiles, view), axis=1), images), [rows] * batch, [cols] * batch

    def pad(
        self, image: T, padded_size: tuple[int, int], fill: int = 0, return_pixel_mask: bool = True
    ) -> tuple[T, T | None]:
        """Pad (channels, height, width) at the right and bottom; return it and the mask (height, width) or None."""
        padded, mask = pad_planes(as_array(image), padded_size, fill)
        return like(padded, image), like(mask, image) if return_pixel_mask else None

    def rescale(self, image: T, scale: float, **kwargs: object) -> T:
        """Multiply by `scale`."""
        return self._each(image, lambda planes: self.arithmetic.rescale(planes, scale))

    def normalize(self, image: T, mean: Numbers, std: Numbers, **kwargs: object) -> T:
        """Subtract the mean and divide by the standard deviation of each channel, in float32."""
        return self._each(image, lambda planes: self.arithmetic.normalize(planes, mean, std))

    def rescale_and_normalize(
        self,
        images: T,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Numbers,
        image_std: Numbers,
    ) -> T:
        """Rescale and normalise in one step."""
        steps = (do_rescale, rescale_factor, do_normalize, image_mean, image_std)
        return self._each(images, lambda planes: self.arithmetic.rescale_and_normalize(planes, *steps))

    def _each(self, images: T, step: Callable[[Array], Array]) -> T:
        """Apply a step to every (channels, height, width) array of an array or tensor with any leading dimensions."""
        given = as_array(images)
        flat = given.reshape(-1, *given.shape[-3:])
        out = np.stack([step(planes) for planes in flat])
        return like(out.reshape(*given.shape[:-3], *out.shape[1:]), images)

    def _keeps_uint8(self, do_pad: bool, padded: bool) -> bool:
        return not do_pad

    def _wrap(self, settings: Settings) -> Wrap:
        return tensor_wrap(settings)


def __getattr__(name: str) -> type[SmolVLMImageProcessor]:
    if name == "SmolVLMImageProcessorFast":
        warnings.warn(
            "SmolVLMImageProcessorFast is now called SmolVLMImageProcessor; the class is the same.",
            FutureWarning,
            stacklevel=2,
        )
        return SmolVLMImageProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
