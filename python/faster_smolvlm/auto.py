"""`AutoProcessor`, `AutoImageProcessor` and `AutoModelForImageTextToText`, by the names that callers know."""

from __future__ import annotations

import os
from typing import Any


class _Factory:
    """A name with `from_pretrained`; it makes no instances of its own."""

    def __init__(self) -> None:
        name = type(self).__name__
        raise OSError(f"{name} is designed to be instantiated using `{name}.from_pretrained(name_or_dir)`.")


class AutoProcessor(_Factory):
    """The processor of a checkpoint."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Return a `SmolVLMProcessor`; see `SmolVLMProcessor.from_pretrained`."""
        from .processing_smolvlm import SmolVLMProcessor

        return SmolVLMProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)


class AutoImageProcessor(_Factory):
    """The image processor of a checkpoint."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        backend: str | None = None,
        use_fast: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return a `SmolVLMImageProcessor`, or with `backend="pil"` a `SmolVLMImageProcessorPil`."""
        return image_processor_class(backend, use_fast).from_pretrained(pretrained_model_name_or_path, **kwargs)


class AutoModelForImageTextToText(_Factory):
    """The model of a checkpoint."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Return a `SmolVLMForConditionalGeneration`; see `SmolVLMForConditionalGeneration.from_pretrained`."""
        from .modeling_smolvlm import SmolVLMForConditionalGeneration

        return SmolVLMForConditionalGeneration.from_pretrained(pretrained_model_name_or_path, **kwargs)


def image_processor_class(backend: str | None = None, use_fast: bool | None = None) -> Any:
    """Return the image processor class of a backend: "torchvision" (the default) or "pil" (`use_fast=False`).

    Raises ValueError for another backend.
    """
    if backend is None:
        backend = "pil" if use_fast is False else "torchvision"
    if backend == "torchvision":
        from .image_processing_smolvlm import SmolVLMImageProcessor

        return SmolVLMImageProcessor
    if backend == "pil":
        from .image_processing_pil_smolvlm import SmolVLMImageProcessorPil

        return SmolVLMImageProcessorPil
    raise ValueError(f"backend must be 'torchvision' or 'pil', got {backend!r}")
