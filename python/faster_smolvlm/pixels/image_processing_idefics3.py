"""The image processors of Idefics3: those of SmolVLM, which inherits its tiling, under the other names."""

from __future__ import annotations

from .image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from .image_processing_smolvlm import SmolVLMImageProcessor


class Idefics3ImageProcessor(SmolVLMImageProcessor):
    """Pictures to frames with the arithmetic of torchvision; see `SmolVLMImageProcessor`."""


class Idefics3ImageProcessorPil(SmolVLMImageProcessorPil):
    """Pictures to frames with the arithmetic of Pillow; see `SmolVLMImageProcessorPil`."""
