"""The start of a generation with the native engine: arguments checked, settings resolved, NumPy throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..generation.config import lengths, resolve
from ..generation.logits import LogitsProcessor, build_processors
from ..generation.loop import Decoding
from ..generation.sampling import Sampler, make_generator
from ..generation.stopping import StoppingCriterion, build_stop_rules
from .engine import NativeEngine
from .lookup import LOOKUP_TOKENS
from .model import NativeSmolVLM


def start_generation(
    model: NativeSmolVLM,
    input_ids: Any,
    generation_config: Any = None,
    logits_processor: Sequence[LogitsProcessor] | None = None,
    stopping_criteria: Sequence[StoppingCriterion] | None = None,
    *,
    attention_mask: Any = None,
    pixel_values: Any = None,
    pixel_attention_mask: Any = None,
    features: Any = None,
    tokenizer: Any = None,
    generator: np.random.Generator | None = None,
    seed: int | None = None,
    reuse: bool = True,
    progress: Any = None,
    **settings: Any,
) -> Decoding[NativeEngine]:
    """Begin to generate after the prompts; iterate over what is returned to make the steps.

    The model inputs are those of `NativeEngine`; `settings` are those of `GenerationConfig`. Callables in
    `logits_processor` and `stopping_criteria` get NumPy arrays. A row that comes to the position limit of the model
    ends there, with the reason "length". Raises ValueError for arguments that are unknown or do
    not fit, NotImplementedError for beam search.
    """
    config = resolve(settings, generation_config, model.generation_config)
    if (config.num_beams or 1) > 1:
        raise NotImplementedError(
            f"The native engine has no beam search (num_beams={config.num_beams}): "
            "use SmolVLMForConditionalGeneration, or leave num_beams out."
        )
    prompts = np.asarray(input_ids)
    engine = NativeEngine(
        model,
        prompts,
        attention_mask,
        pixel_values,
        pixel_attention_mask,
        features,
        lookup=LOOKUP_TOKENS if config.prompt_lookup_num_tokens is None else config.prompt_lookup_num_tokens,
        reuse=reuse,
        progress=progress,
    )
    prompts = prompts.astype(np.int64, copy=False)
    most, least = lengths(config, prompt_length=prompts.shape[1])
    config = replace(config, min_new_tokens=least)
    eos_ids = config.eos_ids
    pad_id = config.pad_token_id if config.pad_token_id is not None else (eos_ids[0] if eos_ids else None)
    copies = config.num_return_sequences or 1
    mask = None if attention_mask is None else np.asarray(attention_mask) != 0
    padding = None if mask is None or mask.all() else mask.argmax(1).repeat(copies).tolist()
    custom, criteria = list(logits_processor or ()), list(stopping_criteria or ())
    # The last token of a row needs no position.
    room = [model.position_limit - usage.prompt_tokens + 1 for usage in engine.usages for _ in range(copies)]
    stop = build_stop_rules(config, max_new_tokens=most, tokenizer=tokenizer, criteria=criteria, room=room)
    return Decoding(
        engine,
        prompts,
        copies=copies,
        max_new_tokens=most,
        pad_id=pad_id if eos_ids else None,
        processors=build_processors(config, prompt_length=prompts.shape[1], padding=padding, custom=custom),
        sees_every_row=bool(custom or criteria or config.return_dict_in_generate),
        sampler=Sampler(bool(config.do_sample), len(prompts) * copies, make_generator(prompts, seed, generator)),
        stop=stop,
        config=config,
    )
