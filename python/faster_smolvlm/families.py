"""The model families: one row each. A new one is its four files, named as in Transformers, and a row.

Nothing is imported until a class is asked for. Rooms below this one do not read it; a family's own files say what they
need of each other (a processor, for one, names its image processors).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from .checkpoint.hub import Checkpoint
from .checkpoint.json_files import read_optional_json

if TYPE_CHECKING:
    from .checkpoint.configuration_smolvlm import SmolVLMConfig
    from .modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
    from .processor.processing_smolvlm import SmolVLMProcessor

PACKAGE = __name__.rpartition(".")[0]
# What a file of a checkpoint may say about its family, the first that is there counts.
_KEYS = ("processor_class", "model_type", "image_processor_type")


class Family(NamedTuple):
    """One row: its files end with `model_type`, its classes begin with `prefix`."""

    model_type: str
    prefix: str
    has_video: bool

    def config_class(self) -> type[SmolVLMConfig]:
        """Return the class of the configuration."""
        found: type[SmolVLMConfig] = self._find(f"checkpoint.configuration_{self.model_type}", "Config")
        return found

    def model_class(self) -> type[SmolVLMForConditionalGeneration]:
        """Return the class of the model with its language head; imports torch."""
        found: type[SmolVLMForConditionalGeneration]
        found = self._find(f"modeling.modeling_{self.model_type}", "ForConditionalGeneration")
        return found

    def processor_class(self) -> type[SmolVLMProcessor]:
        """Return the class of the processor."""
        found: type[SmolVLMProcessor] = self._find(f"processor.processing_{self.model_type}", "Processor")
        return found

    def _find(self, module: str, suffix: str) -> Any:
        return getattr(import_module(f"{PACKAGE}.{module}"), self.prefix + suffix)


FAMILIES = (
    Family("smolvlm", "SmolVLM", has_video=True),
    Family("idefics3", "Idefics3", has_video=False),
)


def family_of(source: Checkpoint, files: Iterable[str]) -> Family:
    """Return the family that the first of `files` to name one names; the first family if none does.

    What a file says begins with a `model_type`, in any case: "idefics3", "Idefics3Processor". Raises OSError if a file
    cannot be read or holds no JSON object.
    """
    for file in files:
        settings = read_optional_json(source.find(file))
        name = next((settings[key] for key in _KEYS if settings.get(key)), None)
        if name is not None:
            known = [family for family in FAMILIES if str(name).lower().startswith(family.model_type)]
            return max(known, key=lambda family: len(family.model_type), default=FAMILIES[0])
    return FAMILIES[0]
