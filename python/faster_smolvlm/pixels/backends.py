"""The image processor classes by family and backend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .image_processing_base import SmolVLMImageProcessorBase

BACKENDS = ("torchvision", "pil")
# Module and class; a module is imported when its class is asked for.
_CLASSES = {
    ("smolvlm", "torchvision"): ("image_processing_smolvlm", "SmolVLMImageProcessor"),
    ("smolvlm", "pil"): ("image_processing_pil_smolvlm", "SmolVLMImageProcessorPil"),
    ("idefics3", "torchvision"): ("image_processing_idefics3", "Idefics3ImageProcessor"),
    ("idefics3", "pil"): ("image_processing_idefics3", "Idefics3ImageProcessorPil"),
}


def image_processor_class(
    backend: str | None = None, use_fast: bool | None = None, model_type: str = "smolvlm"
) -> type[SmolVLMImageProcessorBase]:
    """Return the image processor class of a backend: "torchvision" (the default) or "pil" (`use_fast=False`).

    Raises ValueError for another backend.
    """
    if backend is None:
        backend = "pil" if use_fast is False else "torchvision"
    if backend not in BACKENDS:
        raise ValueError(f"backend must be 'torchvision' or 'pil', got {backend!r}")
    module, name = _CLASSES[model_type, backend]
    found: type[SmolVLMImageProcessorBase] = getattr(import_module(f".{module}", __package__), name)
    return found
