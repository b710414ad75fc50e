"""The start of a generation with the native engine: arguments checked, settings resolved, NumPy throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..generation.logits import LogitsProcessor
from ..generation.loop import Decoding
from ..generation.plan import Plan, Request
from ..generation.stopping import StoppingCriterion
from .engine import EngineOptions, NativeEngine
from .model import NativeSmolVLM

# `lookup` has the name of Transformers among the settings.
_OPTIONS = tuple(name for name in EngineOptions.__annotations__ if name != "lookup")
_INPUTS = ("attention_mask", "pixel_values", "pixel_attention_mask", "features", *_OPTIONS)


def start_generation(
    model: NativeSmolVLM,
    input_ids: ArrayLike,
    generation_config: object = None,
    logits_processor: Sequence[LogitsProcessor] | None = None,
    stopping_criteria: Sequence[StoppingCriterion] | None = None,
    **arguments: Any,
) -> Decoding[NativeEngine]:
    """Begin to generate after the prompts; iterate over what is returned to make the steps.

    The model inputs `input_ids`, `attention_mask`, `pixel_values`, `pixel_attention_mask` and `features`, and `reuse`,
    `cache_salt`, `progress` and `wait_seconds`, are those of `NativeEngine`. Callables in `logits_processor` and
    `stopping_criteria` get NumPy arrays; `tokenizer` is needed for `stop_strings`; `seed` or a `numpy.random.Generator`
    as `generator` make drawing repeatable. All other arguments are settings of `GenerationConfig`. A row that comes to
    the position limit of the model ends there, with the reason "length". Raises ValueError for arguments that are
    unknown or do not fit, NotImplementedError for beam search, CacheFullError for more than the key/value cache holds.
    """
    inputs = {name: arguments.pop(name) for name in _INPUTS if name in arguments}
    request = Request.of(generation_config, logits_processor, stopping_criteria, **arguments)
    config = request.resolve(model.generation_config, inputs=_INPUTS)
    if (config.num_beams or 1) > 1:
        raise NotImplementedError(
            f"The native engine has no beam search (num_beams={config.num_beams}): "
            "use SmolVLMForConditionalGeneration, or leave num_beams out."
        )
    engine = NativeEngine(model, input_ids, lookup=config.prompt_lookup_num_tokens, **inputs)
    prompts = np.asarray(input_ids).astype(np.int64, copy=False)
    mask = None if inputs.get("attention_mask") is None else np.asarray(inputs["attention_mask"])
    return Plan.of(request, config, prompts, mask=mask).decoding(engine)
