"""`AutoProcessor`, `AutoImageProcessor` and `AutoModelForImageTextToText`, by the names that callers know."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .checkpoint.config_base import CONFIG_NAME
from .checkpoint.hub import Checkpoint, checkpoint, split_hub_options
from .checkpoint.json_files import read_optional_json
from .families import FAMILIES, Family, family_named
from .pixels.backends import image_processor_class

if TYPE_CHECKING:
    from .modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
    from .processor.processing_smolvlm import SmolVLMProcessor

# In the order in which Transformers looks.
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json", CONFIG_NAME)
# What one of them may say about its family; the first that is there counts.
_KEYS = ("processor_class", "model_type", "image_processor_type")


class _Factory:
    """A name with `from_pretrained`; it makes no instances of its own."""

    def __init__(self) -> None:
        name = type(self).__name__
        raise OSError(f"{name} is designed to be instantiated using `{name}.from_pretrained(name_or_dir)`.")


class AutoProcessor(_Factory):
    """The processor of a checkpoint."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> SmolVLMProcessor:
        """Return the processor of the family that the files name: an `Idefics3Processor`, else a `SmolVLMProcessor`.

        The arguments and errors are those of `SmolVLMProcessor.from_pretrained`.
        """
        kind = _family(pretrained_model_name_or_path, kwargs, _PROCESSOR_FILES).processor_class()
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

        If the files name Idefics3, those of that family are returned. With `return_unused_kwargs=True` it is a pair:
        the image processor, and the keyword arguments that are none of its settings.
        Raises ValueError for another backend, OSError if the files are missing.
        """
        processor = _family(pretrained_model_name_or_path, kwargs, _PROCESSOR_FILES).processor_class()
        kind = image_processor_class(processor.image_processors, backend, use_fast)
        return kind.from_pretrained(pretrained_model_name_or_path, **kwargs)


class AutoModelForImageTextToText(_Factory):
    """The model of a checkpoint."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> SmolVLMForConditionalGeneration:
        """Return an `Idefics3ForConditionalGeneration` for such a config, else a `SmolVLMForConditionalGeneration`.

        The arguments and errors are those of `SmolVLMForConditionalGeneration.from_pretrained`.
        """
        kind = _family(pretrained_model_name_or_path, kwargs, [CONFIG_NAME]).model_class()
        return kind.from_pretrained(pretrained_model_name_or_path, **kwargs)


def _family(name_or_dir: str | os.PathLike[str], kwargs: dict[str, Any], files: Iterable[str]) -> Family:
    return family_of(checkpoint(name_or_dir, **split_hub_options(kwargs)[0]), files)


def family_of(source: Checkpoint, files: Iterable[str] = (CONFIG_NAME,)) -> Family:
    """Return the family that the first of `files` to name one names; the first family if none does.

    Raises OSError if a file cannot be read or holds no JSON object.
    """
    for file in files:
        settings = read_optional_json(source.find(file))
        name = next((settings[key] for key in _KEYS if settings.get(key)), None)
        if name is not None:
            return family_named(str(name))
    return FAMILIES[0]
