"""The image processor of SmolVLM with the arithmetic of Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _rust
from .arithmetic import Array, BFloat16, Numbers, Pillow
from .call_settings import KEEP_SIZE, Settings, target_of_size
from .image_processing_base import SmolVLMImageProcessorBase
from .output import Wrap, keep_array
from .picture_frames import Planes
from .planes import pad_planes, to_planes
from .size import Size

if TYPE_CHECKING:
    from ..media.kinds import Picture


class SmolVLMImageProcessorPil(SmolVLMImageProcessorBase):
    """Pictures to frames, bit-equal to Transformers' class of this name under Pillow 13.

    Arrays are returned as NumPy arrays unless `return_tensors="pt"` asks for tensors. The single steps below take and
    return (channels, height, width) arrays.
    """

    backend = "pil"
    arithmetic = Pillow()

    def process_image(
        self, image: Picture, do_convert_rgb: bool | None = None, input_data_format: object = None, **kwargs: object
    ) -> Array:
        """Return one picture as a (channels, height, width) array."""
        return to_planes(
            image, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, rgba=self.arithmetic.rgba
        )

    def resize(self, image: Array, size: Size, resample: int | None = 1, **kwargs: object) -> Array:
        """Resize to the longest edge of `size`, or to its height and width."""
        sizes = _rust.ImageSizes(tile=1, split=True, **target_of_size(size))
        (height, width), *_ = _rust.layout(*image.shape[-2:], sizes=sizes)
        return self.arithmetic.resize(image, height, width, resample)

    def resize_for_vision_encoder(
        self, image: Array, vision_encoder_max_size: int, resample: int | None = None
    ) -> Array:
        """Raise both sides to multiples of `vision_encoder_max_size`."""
        sizes = _rust.ImageSizes(tile=vision_encoder_max_size, split=True, **KEEP_SIZE)
        _, (height, width), *_ = _rust.layout(*image.shape[-2:], sizes=sizes)
        return self.arithmetic.resize(image, height, width, resample)

    def split_images(
        self, image: Array, max_image_size: dict[str, int], resample: int | None = None
    ) -> tuple[list[Array], int, int]:
        """Cut into tiles and a global view: (frames, rows, cols)."""
        tile = max_image_size["longest_edge"]
        _, height, width = image.shape
        if height <= tile and width <= tile:
            return [image], 0, 0
        rows, cols = (height - tile) // tile + 1, (width - tile) // tile + 1
        frames = [
            image[:, row * tile : (row + 1) * tile, col * tile : (col + 1) * tile]
            for row in range(rows)
            for col in range(cols)
        ]
        return [*frames, self.resize(image, {"height": tile, "width": tile}, resample)], rows, cols

    def pad(
        self, image: Array, padded_size: tuple[int, int], fill: int = 0, return_pixel_mask: bool = True
    ) -> tuple[Array, Array | None]:
        """Pad at the right and bottom; return the picture and the mask (height, width) or None."""
        padded, mask = pad_planes(image, padded_size, fill)
        return padded, mask if return_pixel_mask else None

    def rescale(self, image: Array, scale: float, **kwargs: object) -> Array:
        """Multiply by `scale`."""
        return self.arithmetic.rescale(image, scale)

    def normalize(self, image: Array, mean: Numbers, std: Numbers, **kwargs: object) -> Array:
        """Subtract the mean and divide by the standard deviation of each channel."""
        return self.arithmetic.normalize(image, mean, std)

    def _planes(self, image: Picture, settings: Settings, which: str) -> Planes:
        planes = super()._planes(image, settings, which)
        if isinstance(planes, BFloat16):
            raise TypeError(f"{which}: bfloat16 pictures are not supported by {type(self).__name__}; pass float32")
        return planes

    def _keeps_uint8(self, do_pad: bool, padded: bool) -> bool:
        return not (do_pad and padded)

    def _wrap(self, settings: Settings) -> Wrap:
        return keep_array
