"""SmolVLM, several times faster: the API of Hugging Face Transformers over a Rust core and Triton kernels.

Nothing heavy is imported here: torch, triton, av, tokenizers and transformers are each imported by the first thing that
needs them, so that ``import faster_smolvlm`` stays quick inside a service.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _rust

if TYPE_CHECKING:
    from .auto import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor
    from .batch_feature import BatchFeature
    from .checkpoint.configuration_idefics3 import Idefics3Config, Idefics3VisionConfig
    from .checkpoint.configuration_smolvlm import SmolVLMConfig, SmolVLMTextConfig, SmolVLMVisionConfig
    from .generation import GenerationConfig, TextIteratorStreamer
    from .media import FrameSampling, MediaPolicy
    from .modeling.modeling_idefics3 import Idefics3ForConditionalGeneration, Idefics3Model
    from .modeling.modeling_smolvlm import (
        SmolVLMForConditionalGeneration,
        SmolVLMModel,
        SmolVLMPreTrainedModel,
        SmolVLMVisionTransformer,
    )
    from .pixels.image_processing_idefics3 import Idefics3ImageProcessor, Idefics3ImageProcessorPil
    from .pixels.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
    from .pixels.image_processing_smolvlm import SmolVLMImageProcessor, SmolVLMImageProcessorFast
    from .pixels.video_processing_smolvlm import SmolVLMVideoProcessor
    from .processor.processing_idefics3 import Idefics3Processor
    from .processor.processing_smolvlm import SmolVLMProcessor
    from .vlm.smolvlm import SmolVLM

# Public name -> module that defines it. `SmolVLMImageProcessorFast` is an alias that warns, as in Transformers.
_MODULES = {
    "auto": ("AutoImageProcessor", "AutoModelForImageTextToText", "AutoProcessor"),
    "checkpoint.configuration_idefics3": ("Idefics3Config", "Idefics3VisionConfig"),
    "checkpoint.configuration_smolvlm": ("SmolVLMConfig", "SmolVLMTextConfig", "SmolVLMVisionConfig"),
    "batch_feature": ("BatchFeature",),
    "generation": ("GenerationConfig", "TextIteratorStreamer"),
    "pixels.image_processing_idefics3": ("Idefics3ImageProcessor", "Idefics3ImageProcessorPil"),
    "pixels.image_processing_pil_smolvlm": ("SmolVLMImageProcessorPil",),
    "pixels.image_processing_smolvlm": ("SmolVLMImageProcessor", "SmolVLMImageProcessorFast"),
    "media": ("FrameSampling", "MediaPolicy"),
    "modeling.modeling_idefics3": ("Idefics3ForConditionalGeneration", "Idefics3Model"),
    "modeling.modeling_smolvlm": (
        "SmolVLMForConditionalGeneration",
        "SmolVLMModel",
        "SmolVLMPreTrainedModel",
        "SmolVLMVisionTransformer",
    ),
    "processor.processing_idefics3": ("Idefics3Processor",),
    "processor.processing_smolvlm": ("SmolVLMProcessor",),
    "vlm.smolvlm": ("SmolVLM",),
    "pixels.video_processing_smolvlm": ("SmolVLMVideoProcessor",),
}
__version__ = _rust.VERSION

_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AutoImageProcessor",
    "AutoModelForImageTextToText",
    "AutoProcessor",
    "BatchFeature",
    "FrameSampling",
    "GenerationConfig",
    "Idefics3Config",
    "Idefics3ForConditionalGeneration",
    "Idefics3ImageProcessor",
    "Idefics3ImageProcessorPil",
    "Idefics3Model",
    "Idefics3Processor",
    "Idefics3VisionConfig",
    "MediaPolicy",
    "SmolVLM",
    "SmolVLMConfig",
    "SmolVLMForConditionalGeneration",
    "SmolVLMImageProcessor",
    "SmolVLMImageProcessorFast",
    "SmolVLMImageProcessorPil",
    "SmolVLMModel",
    "SmolVLMPreTrainedModel",
    "SmolVLMProcessor",
    "SmolVLMTextConfig",
    "SmolVLMVideoProcessor",
    "SmolVLMVisionConfig",
    "SmolVLMVisionTransformer",
    "TextIteratorStreamer",
    "__version__",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
