"""The two engines that `SmolVLM` answers with, behind one interface: the native one without torch, and torch.

Each is imported when it is used: importing `SmolVLM` is quick, and the processor and the weights are read side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, cast

import numpy as np

from ..integers import as_int
from ..native.admission import CacheFullError, most_after, pages_of
from ..native.parts import in_parts
from .ask import Ask

if TYPE_CHECKING:
    from ..generation.loop import Decoding
    from ..media.kinds import AnyArray
    from ..modeling.generate import AnyEngine
    from ..modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
    from ..native import NativeEngine, NativeSmolVLM
    from ..text.tokenization_smolvlm import SmolVLMTokenizer

    AnyDecoding: TypeAlias = Decoding[NativeEngine] | Decoding[AnyEngine]


Inputs: TypeAlias = Mapping[str, Any]
"""What a model is given, by name: arrays or tensors."""


class AnswerEngine(Protocol):
    """What `SmolVLM` needs of an engine. Arrays are NumPy's with the native engine, torch's with torch."""

    name: ClassVar[str]
    tensors: ClassVar[str]
    """The `return_tensors` that the model takes."""

    @property
    def position_limit(self) -> int | None:
        """How many tokens a prompt may have; None if the engine sets no limit."""

    def start(self, inputs: Inputs, tokenizer: SmolVLMTokenizer, ask: Ask) -> AnyDecoding:
        """Begin a generation after the `inputs` of a processor."""

    def check_length(self, length: int, ask: Ask) -> None:
        """Raise ValueError or CacheFullError if a prompt of so many tokens cannot be answered."""

    def parts(self, lengths: Sequence[int], ask: Ask) -> list[slice]:
        """Cut prompts with these numbers of tokens into parts that there is memory for; all are one if it may be."""

    def cut(self, inputs: Inputs, parts: Sequence[slice]) -> Iterable[Inputs]:
        """Return the inputs of each part."""

    def encode(self, pixel_values: AnyArray) -> AnyArray:
        """Return the image tokens (tokens, hidden_size) of frames (1, frames, 3, height, width)."""

    def encoded_inputs(self, features: Sequence[AnyArray]) -> dict[str, object]:
        """Return the input that stands for frames which `encode` encoded."""


class Native:
    """Answers with a `NativeSmolVLM`."""

    name: ClassVar[str] = "native"
    tensors: ClassVar[str] = "np"

    def __init__(self, model: NativeSmolVLM) -> None:
        self._model = model

    @property
    def position_limit(self) -> int | None:
        """See `AnswerEngine`."""
        return self._model.position_limit

    def start(self, inputs: Inputs, tokenizer: SmolVLMTokenizer, ask: Ask) -> AnyDecoding:
        """See `AnswerEngine`."""
        from ..native import start_generation

        options = {**ask.settings(), "reuse": ask.reuse, "cache_salt": ask.cache_salt, "progress": ask.progress}
        options["wait_seconds"] = ask.wait_seconds
        return start_generation(self._model, **inputs, tokenizer=tokenizer, **options)

    def check_length(self, length: int, ask: Ask) -> None:
        """See `AnswerEngine`."""
        limit, rust = self._model.position_limit, self._model.rust
        if length > limit:
            raise ValueError(f"the prompt has {length} tokens; 1 to {limit} are possible with this model")
        if self._pages(length, ask) > rust.pages:
            raise CacheFullError(
                f"the prompt of {length} tokens and {_new_tokens(ask)} new ones at most need "
                f"{self._pages(length, ask) * rust.page_size} positions of the key/value cache, which holds "
                f"{rust.pages * rust.page_size}: lower max_new_tokens, or load with a larger cache_positions"
            )

    def _pages(self, length: int, ask: Ask) -> int:
        default = self._model.generation_config.prompt_lookup_num_tokens
        drafted = as_int(ask.sampling.get("prompt_lookup_num_tokens", default)) or 0
        most = length + most_after(_new_tokens(ask), drafted)
        return pages_of(min(most, self._model.position_limit), self._model.rust.page_size)

    def parts(self, lengths: Sequence[int], ask: Ask) -> list[slice]:
        """See `AnswerEngine`."""
        found, begin, taken = [], 0, 0
        for row, length in enumerate(lengths):
            pages = self._pages(length, ask)
            if row > begin and taken + pages > self._model.rust.pages:
                found.append(slice(begin, row))
                begin, taken = row, 0
            taken += pages
        return [*found, slice(begin, len(lengths))]

    def cut(self, inputs: Inputs, parts: Sequence[slice]) -> Iterable[Inputs]:
        """See `AnswerEngine`."""
        return in_parts(inputs, parts, self._model.config.image_token_id)

    def encode(self, pixel_values: AnyArray) -> AnyArray:
        """See `AnswerEngine`."""
        return self._model.encode(self._model.frames(pixel_values), reuse=False)[0]

    def encoded_inputs(self, features: Sequence[AnyArray]) -> dict[str, object]:
        """See `AnswerEngine`."""
        return {"features": np.concatenate(features)}


class Torch:
    """Answers with a `SmolVLMForConditionalGeneration`."""

    name: ClassVar[str] = "torch"
    tensors: ClassVar[str] = "pt"

    def __init__(self, model: SmolVLMForConditionalGeneration) -> None:
        self._model = model

    @property
    def position_limit(self) -> int | None:
        """See `AnswerEngine`."""
        return None

    def start(self, inputs: Inputs, tokenizer: SmolVLMTokenizer, ask: Ask) -> AnyDecoding:
        """See `AnswerEngine`; there is no `reuse` and no `progress`, and nothing that a `cache_salt` could part."""
        return self._model.start_generation(**inputs, tokenizer=tokenizer, engine="torch", **ask.settings())

    def check_length(self, length: int, ask: Ask) -> None:
        """See `AnswerEngine`."""

    def parts(self, lengths: Sequence[int], ask: Ask) -> list[slice]:
        """See `AnswerEngine`. Torch takes its memory as it needs it."""
        return [slice(0, len(lengths))]

    def cut(self, inputs: Inputs, parts: Sequence[slice]) -> Iterable[Inputs]:
        """See `AnswerEngine`; there is one part."""
        return [inputs]

    def encode(self, pixel_values: AnyArray) -> AnyArray:
        """See `AnswerEngine`."""
        import torch

        pixels = torch.as_tensor(pixel_values)
        with torch.inference_mode():
            pooled = self._model.get_image_features(pixels.to(self._model.device)).pooler_output
        return cast("list[torch.Tensor]", pooled)[0]

    def encoded_inputs(self, features: Sequence[AnyArray]) -> dict[str, object]:
        """See `AnswerEngine`."""
        import torch

        return {"mm_encoder_outputs": [torch.cat([torch.as_tensor(part) for part in features])]}


def _new_tokens(ask: Ask) -> int:
    return max(as_int(ask.max_new_tokens, floats=True) or 1, 1)


def engine_of(model: SmolVLMForConditionalGeneration | NativeSmolVLM) -> AnswerEngine:
    """Return the engine that answers with a model. An attribute decides, so that neither class is imported for it."""
    if hasattr(model, "isa"):
        return Native(cast("NativeSmolVLM", model))
    return Torch(cast("SmolVLMForConditionalGeneration", model))
