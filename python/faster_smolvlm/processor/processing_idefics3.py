"""`Idefics3Processor`: the processor of SmolVLM v1, SmolDocling, granite-docling and ColSmol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..batch_feature import BatchFeature
from ..media.nesting import nest_images
from ..pixels.call_settings import Settings
from ..pixels.protocols import ImageProcessor
from ..text.expansion import PromptPart
from ..text.placeholders import image_prompt
from ..text.tokenization_smolvlm import SmolVLMTokenizer
from .files import ChatTemplates
from .processing_smolvlm import SmolVLMProcessor


class Idefics3Processor(SmolVLMProcessor):
    """As `SmolVLMProcessor`, for pictures and text.

    What differs: a flat list of pictures is dealt out to the prompts by their `<image>` tokens, `mm_token_type_ids` are
    1 in the whole expansion of a picture, and the global view's token is called `global_image_tag`.
    """

    model_type = "idefics3"
    image_processors = {  # noqa: RUF012
        "torchvision": "image_processing_idefics3.Idefics3ImageProcessor",
        "pil": "image_processing_idefics3.Idefics3ImageProcessorPil",
    }
    unused_input_names = ("rows", "cols")

    def __init__(
        self,
        image_processor: ImageProcessor,
        tokenizer: SmolVLMTokenizer,
        image_seq_len: int = 169,
        chat_template: ChatTemplates = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_len, chat_template, **kwargs)
        self.fake_image_token_id = tokenizer.get_token_id(self.fake_image_token)
        self.global_image_token_id = tokenizer.get_token_id(self.global_image_tag)

    @property
    def global_image_tag(self) -> str:
        """The token in front of the global view."""
        return self.global_image_token

    @global_image_tag.setter
    def global_image_tag(self, token: str) -> None:
        self.global_image_token = token

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The names of the parts."""
        return ["image_processor", "tokenizer"]

    def __call__(  # type: ignore[override]  # Transformers' own two classes differ here
        self, images: object = None, text: str | Sequence[str] | None = None, **kwargs: object
    ) -> BatchFeature:
        """Prepare pictures and text for the model; see `SmolVLMProcessor`."""
        return super().__call__(images, text, **kwargs)

    def _nest(self, images: object, texts: list[str] | None) -> list[list[object]]:
        nested = nest_images(images)
        if len(nested) != 1 or texts is None or not _is_flat(images):
            return nested
        counts = [text.count(self.image_token) for text in texts]
        ends = np.cumsum(counts).tolist()
        dealt = [nested[0][end - count : end] for count, end in zip(counts, ends, strict=True)]
        rest = nested[0][ends[-1] if ends else 0 :]
        return [*dealt, rest] if rest else dealt

    def _encode(self, texts: list[str], parts: list[list[PromptPart]], options: Settings) -> Settings:
        marks = options.get("return_mm_token_type_ids") and any(parts)
        features = super()._encode(texts, parts, {**options, "return_mm_token_type_ids": False})
        if marks:
            rows = zip(features["input_ids"], parts, strict=True)
            features["mm_token_type_ids"] = [self._marks(list(map(int, ids)), sample) for ids, sample in rows]
        return features

    def _marks(self, ids: list[int], sample: list[PromptPart]) -> list[int]:
        marks, start = [0] * len(ids), 0
        for part in sample:
            prompt = image_prompt(part.grid, self.image_seq_len, self._media_tokens)
            start = ids.index(self.fake_image_token_id, start)
            end = start + len(self.tokenizer.encode_fragment(prompt))
            marks[start:end] = [1] * (end - start)
            start = end
        return marks


def _is_flat(images: object) -> bool:
    return isinstance(images, (list, tuple)) and not any(isinstance(image, (list, tuple)) for image in images)
