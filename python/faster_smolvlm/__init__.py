"""SmolVLM, several times faster: the API of Hugging Face Transformers over a Rust core and Triton kernels.

Nothing heavy is imported here: torch, triton, av, tokenizers and transformers are each imported by the first thing that
needs them, so that ``import faster_smolvlm`` stays quick inside a service.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import _rust

if TYPE_CHECKING:  # for type checkers, which do not run `__getattr__`; a test compares these lines with the table
    from .auto import AutoImageProcessor as AutoImageProcessor
    from .auto import AutoModelForImageTextToText as AutoModelForImageTextToText
    from .auto import AutoProcessor as AutoProcessor
    from .batch_feature import BatchFeature as BatchFeature
    from .checkpoint.configuration_idefics3 import Idefics3Config as Idefics3Config
    from .checkpoint.configuration_idefics3 import Idefics3VisionConfig as Idefics3VisionConfig
    from .checkpoint.configuration_smolvlm import SmolVLMConfig as SmolVLMConfig
    from .checkpoint.configuration_smolvlm import SmolVLMTextConfig as SmolVLMTextConfig
    from .checkpoint.configuration_smolvlm import SmolVLMVisionConfig as SmolVLMVisionConfig
    from .generation import GenerationConfig as GenerationConfig
    from .generation import TextIteratorStreamer as TextIteratorStreamer
    from .generation.usage import Usage as Usage
    from .media import FrameSampling as FrameSampling
    from .media import MediaDecodeError as MediaDecodeError
    from .media import MediaError as MediaError
    from .media import MediaFetchError as MediaFetchError
    from .media import MediaLimitError as MediaLimitError
    from .media import MediaNotFoundError as MediaNotFoundError
    from .media import MediaPolicy as MediaPolicy
    from .media import MediaRefusedError as MediaRefusedError
    from .media import MediaTypeError as MediaTypeError
    from .media import load_image as load_image
    from .media.video import load_video as load_video
    from .modeling.modeling_idefics3 import Idefics3ForConditionalGeneration as Idefics3ForConditionalGeneration
    from .modeling.modeling_idefics3 import Idefics3Model as Idefics3Model
    from .modeling.modeling_smolvlm import SmolVLMForConditionalGeneration as SmolVLMForConditionalGeneration
    from .modeling.modeling_smolvlm import SmolVLMModel as SmolVLMModel
    from .modeling.modeling_smolvlm import SmolVLMPreTrainedModel as SmolVLMPreTrainedModel
    from .modeling.modeling_smolvlm import SmolVLMVisionTransformer as SmolVLMVisionTransformer
    from .native import NativeSmolVLM as NativeSmolVLM
    from .native.admission import CacheFullError as CacheFullError
    from .pixels.image_processing_idefics3 import Idefics3ImageProcessor as Idefics3ImageProcessor
    from .pixels.image_processing_idefics3 import Idefics3ImageProcessorPil as Idefics3ImageProcessorPil
    from .pixels.image_processing_pil_smolvlm import SmolVLMImageProcessorPil as SmolVLMImageProcessorPil
    from .pixels.image_processing_smolvlm import SmolVLMImageProcessor as SmolVLMImageProcessor
    from .pixels.image_processing_smolvlm import SmolVLMImageProcessorFast as SmolVLMImageProcessorFast
    from .pixels.video_processing_smolvlm import SmolVLMVideoProcessor as SmolVLMVideoProcessor
    from .processor.processing_idefics3 import Idefics3Processor as Idefics3Processor
    from .processor.processing_smolvlm import SmolVLMProcessor as SmolVLMProcessor
    from .vlm.answers import Result as Result
    from .vlm.answers import Stream as Stream
    from .vlm.answers import Timings as Timings
    from .vlm.smolvlm import SmolVLM as SmolVLM

# Public name -> module that defines it. `SmolVLMImageProcessorFast` is an alias that warns, as in Transformers.
_HOME = {
    "AutoImageProcessor": "auto",
    "AutoModelForImageTextToText": "auto",
    "AutoProcessor": "auto",
    "BatchFeature": "batch_feature",
    "CacheFullError": "native.admission",
    "FrameSampling": "media",
    "GenerationConfig": "generation",
    "Idefics3Config": "checkpoint.configuration_idefics3",
    "Idefics3ForConditionalGeneration": "modeling.modeling_idefics3",
    "Idefics3ImageProcessor": "pixels.image_processing_idefics3",
    "Idefics3ImageProcessorPil": "pixels.image_processing_idefics3",
    "Idefics3Model": "modeling.modeling_idefics3",
    "Idefics3Processor": "processor.processing_idefics3",
    "Idefics3VisionConfig": "checkpoint.configuration_idefics3",
    "MediaDecodeError": "media",
    "MediaError": "media",
    "MediaFetchError": "media",
    "MediaLimitError": "media",
    "MediaNotFoundError": "media",
    "MediaPolicy": "media",
    "MediaRefusedError": "media",
    "MediaTypeError": "media",
    "NativeSmolVLM": "native",
    "Result": "vlm.answers",
    "SmolVLM": "vlm.smolvlm",
    "SmolVLMConfig": "checkpoint.configuration_smolvlm",
    "SmolVLMForConditionalGeneration": "modeling.modeling_smolvlm",
    "SmolVLMImageProcessor": "pixels.image_processing_smolvlm",
    "SmolVLMImageProcessorFast": "pixels.image_processing_smolvlm",
    "SmolVLMImageProcessorPil": "pixels.image_processing_pil_smolvlm",
    "SmolVLMModel": "modeling.modeling_smolvlm",
    "SmolVLMPreTrainedModel": "modeling.modeling_smolvlm",
    "SmolVLMProcessor": "processor.processing_smolvlm",
    "SmolVLMTextConfig": "checkpoint.configuration_smolvlm",
    "SmolVLMVideoProcessor": "pixels.video_processing_smolvlm",
    "SmolVLMVisionConfig": "checkpoint.configuration_smolvlm",
    "SmolVLMVisionTransformer": "modeling.modeling_smolvlm",
    "Stream": "vlm.answers",
    "TextIteratorStreamer": "generation",
    "Timings": "vlm.answers",
    "Usage": "generation.usage",
    "load_image": "media",
    "load_video": "media.video",
}
__version__ = _rust.VERSION

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(f".{module}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
