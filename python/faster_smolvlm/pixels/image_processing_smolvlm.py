"""The image processor of SmolVLM with the arithmetic of torchvision, which is Transformers' default."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _rust
from .arithmetic import Array, Numbers, Torch
from .call_settings import KEEP_SIZE, Settings, target_of_size
from .image_processing_base import SmolVLMImageProcessorBase
from .output import Wrap, tensor_wrap, to_tensor
from .planes import to_planes

if TYPE_CHECKING:
    import torch


class SmolVLMImageProcessor(SmolVLMImageProcessorBase):
    """Pictures to frames, bit-equal to Transformers' class of this name; neither torch nor torchvision computes.

    Arrays are returned as torch tensors, as there, unless `return_tensors="np"` asks for NumPy or torch is not
    installed. The single steps below take and return tensors (…, channels, height, width), or arrays for arrays.
    """

    backend = "torchvision"
    arithmetic = Torch()

    def process_image(
        self, image: Any, do_convert_rgb: bool | None = None, input_data_format: Any = None, **kwargs: Any
    ) -> torch.Tensor:
        """Return one picture as a (channels, height, width) tensor."""
        planes = to_planes(
            image, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, rgba=self.arithmetic.rgba
        )
        return to_tensor(planes)

    def resize(self, image: Any, size: Any, resample: int | None = None, **kwargs: Any) -> Any:
        """Resize to the longest edge of `size`, or to its height and width."""
        (height, width), *_ = _rust.layout(*image.shape[-2:], tile=1, split=True, **target_of_size(size))
        return self._each(image, lambda planes: self.arithmetic.resize(planes, height, width, resample))

    def resize_for_vision_encoder(self, image: Any, vision_encoder_max_size: int, resample: int | None = None) -> Any:
        """Raise both sides to multiples of `vision_encoder_max_size`."""
        _, (height, width), *_ = _rust.layout(*image.shape[-2:], tile=vision_encoder_max_size, split=True, **KEEP_SIZE)
        return self._each(image, lambda planes: self.arithmetic.resize(planes, height, width, resample))

    def split_images(
        self, images: Any, max_image_size: dict[str, int], resample: int | None = None
    ) -> tuple[Any, list[int], list[int]]:
        """Cut (batch, channels, height, width) into tiles and a global view: (frames, rows, cols)."""
        tile = max_image_size["longest_edge"]
        batch, channels, height, width = images.shape
        if height <= tile and width <= tile:
            return images[:, None], [0] * batch, [0] * batch
        rows, cols = height // tile, width // tile
        cut = images[..., : rows * tile, : cols * tile].reshape(batch, channels, rows, tile, cols, tile)
        order = (0, 2, 4, 1, 3, 5)
        tiles = (cut.transpose(order) if isinstance(cut, np.ndarray) else cut.permute(order)).reshape(
            batch, rows * cols, channels, tile, tile
        )
        view = self.resize(images, {"height": tile, "width": tile}, resample)[:, None]
        return _concatenate(tiles, view), [rows] * batch, [cols] * batch

    def pad(
        self, image: Any, padded_size: tuple[int, int], fill: int = 0, return_pixel_mask: bool = True
    ) -> tuple[Any, Any]:
        """Pad (channels, height, width) at the right and bottom; return it and the mask (height, width) or None."""
        height, width = image.shape[-2:]
        below, right = padded_size[0] - height, padded_size[1] - width
        if below < 0 or right < 0:
            raise ValueError(
                "Padding dimensions are negative. Please make sure that the padded size is larger than the original "
                f"size. Got padded size: {padded_size}, original size: {(height, width)}."
            )
        pads = ((0, 0), (0, below), (0, right))
        padded = self._each(image, lambda planes: np.pad(planes, pads, constant_values=fill))
        if not return_pixel_mask:
            return padded, None
        mask = np.zeros(padded_size, dtype=np.int64)
        mask[:height, :width] = 1
        return padded, mask if isinstance(image, np.ndarray) else to_tensor(mask)

    def rescale(self, image: Any, scale: float, **kwargs: Any) -> Any:
        """Multiply by `scale`."""
        return self._each(image, lambda planes: self.arithmetic.rescale(planes, scale))

    def normalize(self, image: Any, mean: Numbers, std: Numbers, **kwargs: Any) -> Any:
        """Subtract the mean and divide by the standard deviation of each channel, in float32."""
        return self._each(image, lambda planes: self.arithmetic.normalize(planes, mean, std))

    def rescale_and_normalize(
        self, images: Any, do_rescale: bool, rescale_factor: float, do_normalize: bool, image_mean: Any, image_std: Any
    ) -> Any:
        """Rescale and normalise in one step."""
        steps = (do_rescale, rescale_factor, do_normalize, image_mean, image_std)
        return self._each(images, lambda planes: self.arithmetic.rescale_and_normalize(planes, *steps))

    def _each(self, images: Any, step: Callable[[Array], Array]) -> Any:
        """Apply a step to every (channels, height, width) array of an array or tensor with any leading dimensions."""
        given = images if isinstance(images, np.ndarray) else images.detach().cpu().numpy()
        flat = given.reshape(-1, *given.shape[-3:])
        out = np.stack([step(planes) for planes in flat])
        out = out.reshape(*given.shape[:-3], *out.shape[1:])
        return out if isinstance(images, np.ndarray) else to_tensor(out).to(images.device)

    def _keeps_uint8(self, do_pad: bool, padded: bool) -> bool:
        return not do_pad

    def _wrap(self, settings: Settings) -> Wrap:
        return tensor_wrap(settings)


def _concatenate(tiles: Any, view: Any) -> Any:
    if isinstance(tiles, np.ndarray):
        return np.concatenate((tiles, view), axis=1)
    import torch

    return torch.cat((tiles, view), dim=1)


def __getattr__(name: str) -> Any:
    if name == "SmolVLMImageProcessorFast":
        warnings.warn(
            "SmolVLMImageProcessorFast is now called SmolVLMImageProcessor; the class is the same.",
            FutureWarning,
            stacklevel=2,
        )
        return SmolVLMImageProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
