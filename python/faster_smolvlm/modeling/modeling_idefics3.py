"""Idefics3 as torch modules: those of SmolVLM, which inherits its architecture, under the other names."""

from __future__ import annotations

from ..checkpoint.configuration_idefics3 import Idefics3Config
from .modeling_smolvlm import SmolVLMForConditionalGeneration, SmolVLMModel

__all__ = ["Idefics3ForConditionalGeneration", "Idefics3Model"]


class Idefics3Model(SmolVLMModel):
    """Token ids and pictures to hidden states; see `SmolVLMModel`."""

    config_class = Idefics3Config


class Idefics3ForConditionalGeneration(SmolVLMForConditionalGeneration):
    """Token ids and pictures to the scores of the next tokens; see `SmolVLMForConditionalGeneration`."""

    config_class = Idefics3Config
