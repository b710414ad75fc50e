"""The configs of Idefics3: those of SmolVLM, which inherits its architecture, under the other names."""

from __future__ import annotations

from typing import ClassVar

from .configuration_smolvlm import SmolVLMConfig, SmolVLMVisionConfig


class Idefics3VisionConfig(SmolVLMVisionConfig):
    """The vision tower; see `SmolVLMVisionConfig`."""

    model_type: ClassVar[str] = "idefics3_vision"
    accepted_model_types: ClassVar[tuple[str, ...]] = ("idefics3", "smolvlm_vision", "siglip_vision_model")


class Idefics3Config(SmolVLMConfig):
    """The whole model (SmolVLM v1, SmolDocling, granite-docling, ColSmol); see `SmolVLMConfig`."""

    model_type: ClassVar[str] = "idefics3"
    accepted_model_types: ClassVar[tuple[str, ...]] = ()
    vision_config_class: ClassVar[type[SmolVLMVisionConfig]] = Idefics3VisionConfig
