"""`AutoProcessor`, `AutoImageProcessor` and `AutoModelForImageTextToText`, by the names that callers know."""

from __future__ import annotations

import os
from typing import Any

from .checkpoint.hub import checkpoint, split_hub_options
from .checkpoint.json_files import read_optional_json

# In the order in which Transformers looks.
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "config.json")


class _Factory:
    """A name with `from_pretrained`; it makes no instances of its own."""

    def __init__(self) -> None:
        name = type(self).__name__
        raise OSError(f"{name} is designed to be instantiated using `{name}.from_pretrained(name_or_dir)`.")


class AutoProcessor(_Factory):
    """The processor of a checkpoint."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Return an `Idefics3Processor` where the files name it, else a `SmolVLMProcessor`."""
        kind: Any
        if _is_idefics3(pretrained_model_name_or_path, kwargs, _PROCESSOR_FILES):
            from .processor.processing_idefics3 import Idefics3Processor as kind  # noqa: N813
        else:
            from .processor.processing_smolvlm import SmolVLMProcessor as kind  # noqa: N813
        return kind.from_pretrained(pretrained_model_name_or_path, **kwargs)


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
        """Return a `SmolVLMImageProcessor`, or with `backend="pil"` a `SmolVLMImageProcessorPil`.

        Where the files name those of Idefics3, theirs are returned.
        """
        idefics3 = _is_idefics3(pretrained_model_name_or_path, kwargs, _PROCESSOR_FILES)
        kind = image_processor_class(backend, use_fast, "idefics3" if idefics3 else "smolvlm")
        return kind.from_pretrained(pretrained_model_name_or_path, **kwargs)


class AutoModelForImageTextToText(_Factory):
    """The model of a checkpoint."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Return an `Idefics3ForConditionalGeneration` for such a config, else a `SmolVLMForConditionalGeneration`."""
        kind: Any
        if _is_idefics3(pretrained_model_name_or_path, kwargs, ("config.json",)):
            from .modeling.modeling_idefics3 import Idefics3ForConditionalGeneration as kind  # noqa: N813
        else:
            from .modeling.modeling_smolvlm import SmolVLMForConditionalGeneration as kind  # noqa: N813
        return kind.from_pretrained(pretrained_model_name_or_path, **kwargs)


def image_processor_class(backend: str | None = None, use_fast: bool | None = None, model_type: str = "smolvlm") -> Any:
    """Return the image processor class of a backend: "torchvision" (the default) or "pil" (`use_fast=False`).

    Raises ValueError for another backend.
    """
    if backend is None:
        backend = "pil" if use_fast is False else "torchvision"
    if backend not in ("torchvision", "pil"):
        raise ValueError(f"backend must be 'torchvision' or 'pil', got {backend!r}")
    if model_type == "idefics3":
        from .pixels import image_processing_idefics3 as idefics3

        return idefics3.Idefics3ImageProcessor if backend == "torchvision" else idefics3.Idefics3ImageProcessorPil
    if backend == "torchvision":
        from .pixels.image_processing_smolvlm import SmolVLMImageProcessor

        return SmolVLMImageProcessor
    from .pixels.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    return SmolVLMImageProcessorPil


def _is_idefics3(name_or_dir: str | os.PathLike[str], kwargs: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Whether the first of the files that says what it is for is of Idefics3."""
    source = checkpoint(name_or_dir, **split_hub_options(kwargs)[0])
    for name in names:
        settings = read_optional_json(source.find(name))
        said = settings.get("processor_class") or settings.get("model_type") or settings.get("image_processor_type")
        if said is not None:
            return str(said).lower().startswith("idefics3")
    return False
