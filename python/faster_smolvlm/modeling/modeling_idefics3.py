"""Idefics3 as torch modules: those of SmolVLM, which inherits its architecture, under the other names."""

from __future__ import annotations

from ..checkpoint.configuration_idefics3 import Idefics3Config
from .engines.known_modules import known_to_native
from .modeling_smolvlm import SmolVLMForConditionalGeneration, SmolVLMModel

__all__ = ["Idefics3ForConditionalGeneration", "Idefics3Model"]


@known_to_native
class Idefics3Model(SmolVLMModel):
    """Token ids and pictures to hidden states; see `SmolVLMModel`."""

    config_class = Idefics3Config


@known_to_native
class Idefics3ForConditionalGeneration(SmolVLMForConditionalGeneration):
    """Token ids and pictures to the scores of the next tokens; see `SmolVLMForConditionalGeneration`."""

    config_class = Idefics3Config
