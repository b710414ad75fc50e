"""The model families: one row each. A new one is its four files, named as in Transformers, and a row.

Nothing is imported until a class is asked for. The folders below do not read this table; the files of a family say what
they need of each other (a processor, for one, names its image processors).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .checkpoint.configuration_smolvlm import SmolVLMConfig
    from .modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
    from .processor.processing_smolvlm import SmolVLMProcessor

PACKAGE = __name__.rpartition(".")[0]


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


def family_named(name: str) -> Family:
    """Return the family whose `model_type` a name begins with, in any case: "idefics3", "Idefics3Processor".

    For another name it is the first one.
    """
    known = [family for family in FAMILIES if name.lower().startswith(family.model_type)]
    return max(known, key=lambda family: len(family.model_type), default=FAMILIES[0])
