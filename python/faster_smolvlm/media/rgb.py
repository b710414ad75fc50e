"""From a PIL image of any mode to RGB, as pictures and as frames of clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image


def rgb_of(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert to mode RGB, what is transparent composed onto white; an image that is RGB already is returned itself.

    Greys of more than 8 bits are clipped to 0..255, as Pillow does.
    """
    if image.mode == "La":
        image = image.convert("LA")  # Pillow converts it to nothing else
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        from PIL import Image

        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")
