"""Which image processor class stands for a backend."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from ..quoting import shown

if TYPE_CHECKING:
    from .image_processing_base import SmolVLMImageProcessorBase

BACKENDS = ("torchvision", "pil")
"""With whose arithmetic the pixels are made; the first is the default."""


def image_processor_class(
    classes: Mapping[str, str], backend: str | None = None, use_fast: bool | None = None
) -> type[SmolVLMImageProcessorBase]:
    """Return the class of a backend: "torchvision" (the default) or "pil" (also `use_fast=False`).

    `classes` are a family's: backend to "module.Class", the module one of this folder; see
    `SmolVLMProcessor.image_processors`. Raises ValueError for another backend.
    """
    if backend is None:
        backend = "pil" if use_fast is False else "torchvision"
    if backend not in BACKENDS:
        raise ValueError(f"backend must be 'torchvision' or 'pil', got {shown(backend)}")
    module, _, name = classes[backend].rpartition(".")
    found: type[SmolVLMImageProcessorBase] = getattr(import_module(f".{module}", __package__), name)
    return found
