"""`GenerationMixin`: `generate` of the torch model, with the arguments of Transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..checkpoint.hub import Checkpoint
from ..generation.beam import BeamSearch
from ..generation.choice import ServedBy, forced_engine
from ..generation.config import FILE_NAME, GenerationConfig, lengths, resolve
from ..generation.logits import LogitsProcessor, build_processors
from ..generation.loop import Decoding
from ..generation.sampling import Sampler, make_generator
from ..generation.stopping import StoppingCriterion, StopRules, build_stop_rules
from ..generation.streamers import Streamer
from .engines.eager import TorchEngine
from .engines.graph import make_engine
from .engines.model_inputs import ModelInputs, check_mask, check_prompts
from .engines.native import NativeTorchEngine, native_engine
from .engines.native_twin import NativeTwin
from .modeling_outputs import ModelOutput

AnyEngine: TypeAlias = TorchEngine | NativeTorchEngine


class GenerateOutput(ModelOutput):
    """What `generate(return_dict_in_generate=True)` returns: `sequences` int64 [rows, length], padded after their end.

    `scores` (after the processors) and `logits` (before) hold one float32 [rows, vocabulary] a step where asked for.
    Beam search adds `sequences_scores` [rows] and `beam_indices` [rows, new tokens].
    """

    sequences: Tensor
    sequences_scores: Tensor | None
    scores: tuple[Tensor, ...] | None
    logits: tuple[Tensor, ...] | None
    beam_indices: Tensor | None
    past_key_values: Any


class GenerationMixin:
    """Adds `generate` to a model with `forward`, `get_image_features`, `config`, `device` and `dtype`."""

    generation_config: GenerationConfig
    generation_engine: ServedBy | None = None
    """Which engine served the last call of `generate`, and why it was not the native one."""
    _native: NativeTwin

    def _read_extras(self, files: Checkpoint) -> None:
        path = files.find(FILE_NAME)
        if path is not None:
            self.generation_config = GenerationConfig.from_file(path)

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: Any = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        stopping_criteria: Sequence[StoppingCriterion] | None = None,
        streamer: Streamer | None = None,
        **arguments: Any,
    ) -> Tensor | GenerateOutput:
        """Generate after prompts: greedily, or by drawing with `do_sample=True`.

        Model inputs: `input_ids` (or `inputs`) int64 [rows, length], `attention_mask` of that shape with padding on the
        left, `pixel_values` [rows, pictures, 3, height, width], `pixel_attention_mask` [rows, pictures, height, width],
        or `mm_encoder_outputs` in place of the pixels, or `inputs_embeds` [rows, length, hidden_size]. Pictures are
        encoded once, whatever `num_return_sequences`.

        `logits_processor` and `stopping_criteria` are lists of callables `(input_ids, scores)`, those of Transformers
        included; `streamer` gets each token (`put`, `end`) and one that has `closed` set ends the call; `tokenizer` is
        needed for `stop_strings`; `generator` or `seed` make drawing repeatable. `engine` forces "native" or "torch",
        as the environment variable FASTER_SMOLVLM_ENGINE does. By default the native engine serves a model on the CPU,
        outside training, whose modules are as they were built, if it can compute the call; `generation_engine` says
        which one did. It keeps a packed copy of the weights, and packs anew when they change. All other arguments are
        settings of `GenerationConfig`, and win over the `generation_config` given and over the model's own.

        Returns int64 [rows * num_return_sequences, length] with the prompt (without, after `inputs_embeds` alone), or a
        `GenerateOutput`. Raises ValueError for arguments that are unknown or do not fit, NotImplementedError for
        settings of Transformers that this package does not have.
        """
        try:
            prepared = self._prepare(inputs, generation_config, logits_processor, stopping_criteria, **arguments)
            if (prepared.config.num_beams or 1) > 1:
                if streamer is not None:
                    raise ValueError("beam search knows its answer only at the end: leave out streamer, or num_beams.")
                return _search(prepared)
            with _decode(prepared) as call:
                if streamer is not None:
                    streamer.put(call.ids.cpu())
                for tokens in call:
                    if streamer is not None:
                        streamer.put(tokens.cpu())
                        if getattr(streamer, "closed", False):
                            break
        finally:
            if streamer is not None:
                streamer.end()
        self._served(prepared.engine)
        sequences: Tensor = call.ids
        if not prepared.config.return_dict_in_generate:
            return sequences
        cache = prepared.engine.past_key_values
        return GenerateOutput(sequences=sequences, scores=call.scores, logits=call.logits, past_key_values=cache)

    def start_generation(self, *arguments: Any, **named: Any) -> Decoding[AnyEngine]:
        """Check the arguments of `generate` and return the call, whose steps are made by iterating over it."""
        prepared = self._prepare(*arguments, **named)
        if (prepared.config.num_beams or 1) > 1:
            raise ValueError("beam search knows its answer only at the end: it cannot be made step by step.")
        return _decode(prepared)

    def _prepare(
        self,
        inputs: Tensor | None = None,
        generation_config: Any = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        stopping_criteria: Sequence[StoppingCriterion] | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mm_encoder_outputs: Any = None,
        past_key_values: Any = None,
        tokenizer: Any = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        engine: str | None = None,
        **settings: Any,
    ) -> _Prepared:
        if past_key_values is not None:
            raise NotImplementedError("generate() makes its own cache: past_key_values is not supported. Leave it out.")
        if inputs is not None and input_ids is not None:
            raise ValueError("inputs and input_ids are the same argument: pass one of them.")
        if pixel_values is not None and mm_encoder_outputs is not None:
            raise ValueError("pass either pixel_values or mm_encoder_outputs, the pictures encoded, not both.")
        config = resolve(settings, generation_config, self.generation_config)
        vocabulary = self.get_input_embeddings().num_embeddings  # type: ignore[attr-defined]
        prompts = check_prompts(inputs if input_ids is None else input_ids, inputs_embeds, vocabulary)
        eos_ids = config.eos_ids
        pad_id = config.pad_token_id if config.pad_token_id is not None else (eos_ids[0] if eos_ids else None)
        mask = check_mask(attention_mask, prompts, inputs_embeds, pad_id, eos_ids)
        most, least = lengths(config, prompt_length=(prompts if inputs_embeds is None else inputs_embeds).shape[1])
        config = replace(config, min_new_tokens=least)

        device: torch.device = self.device  # type: ignore[attr-defined]
        prompts = prompts.to(device)
        model_inputs = ModelInputs(
            input_ids=prompts if inputs_embeds is None else None,
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            pixel_values=pixel_values,
            pixel_attention_mask=pixel_attention_mask,
            mm_encoder_outputs=mm_encoder_outputs,
        )
        copies = max(config.num_beams or 1, config.num_return_sequences or 1)
        rows = len(prompts if inputs_embeds is None else inputs_embeds) * copies
        serving = self._engine(forced_engine(engine), model_inputs.to(device), config, most, rows)
        padding = None if mask is None else (mask != 0).int().argmax(1).repeat_interleave(copies).tolist()
        custom = list(logits_processor or ())
        criteria = list(stopping_criteria or ())
        return _Prepared(
            engine=serving,
            prompts=prompts,
            config=config,
            max_new_tokens=most,
            pad_id=pad_id,
            processors=build_processors(config, prompt_length=prompts.shape[1], padding=padding, custom=custom),
            stop=build_stop_rules(config, max_new_tokens=most, tokenizer=tokenizer, criteria=criteria),
            generator=make_generator(prompts, seed, generator),
            has_callables=bool(custom or criteria),
        )

    def _engine(
        self, forced: str | None, inputs: ModelInputs, config: GenerationConfig, max_new_tokens: int, rows: int
    ) -> AnyEngine:
        """Choose the engine of a call. Raises ValueError where the native one is forced and cannot serve it."""
        native: NativeTorchEngine | str = "it was asked to leave it to torch"
        if forced != "torch":
            native = native_engine(self, inputs, config, max_new_tokens=max_new_tokens, rows=rows)
        if not isinstance(native, str):
            self.generation_engine = ServedBy(native.name)
            return native
        if forced == "native":
            raise ValueError(f"the native engine cannot serve this call: {native}.")
        engine = make_engine(
            self,
            inputs,
            max_new_tokens=max_new_tokens,
            rows=rows,
            use_cache=config.use_cache is not False or inputs.inputs_embeds is not None,
            keep_cache=bool(config.return_dict_in_generate),
        )
        self.generation_engine = ServedBy(engine.name, native)
        return engine

    def _served(self, engine: AnyEngine) -> None:
        """Say it again after the call: whether a graph was captured shows in its course."""
        reason = self.generation_engine.reason if self.generation_engine is not None else ""
        self.generation_engine = ServedBy(engine.name, reason)


@dataclass
class _Prepared:
    """The arguments of one call, checked."""

    engine: AnyEngine
    prompts: Tensor
    config: GenerationConfig
    max_new_tokens: int
    pad_id: int | None
    processors: list[LogitsProcessor]
    stop: StopRules
    generator: torch.Generator | None
    has_callables: bool


def _decode(call: _Prepared) -> Decoding[AnyEngine]:
    copies = call.config.num_return_sequences or 1
    return Decoding(
        call.engine,
        call.prompts,
        copies=copies,
        max_new_tokens=call.max_new_tokens,
        pad_id=call.pad_id if call.config.eos_ids else None,
        processors=call.processors,
        sees_every_row=call.has_callables or bool(call.config.return_dict_in_generate),
        sampler=Sampler(bool(call.config.do_sample), len(call.prompts) * copies, call.generator),
        stop=call.stop,
        config=call.config,
    )


def _search(call: _Prepared) -> Tensor | GenerateOutput:
    assert isinstance(call.engine, TorchEngine)  # the native engine has no beams, so it did not offer itself
    search = BeamSearch(
        call.engine,
        call.prompts,
        max_new_tokens=call.max_new_tokens,
        pad_id=call.pad_id,
        processors=call.processors,
        generator=call.generator,
        stop=call.stop,
        config=call.config,
    )
    search.run()
    sequences: Tensor = search.ids
    if not call.config.return_dict_in_generate:
        return sequences
    return GenerateOutput(
        sequences=sequences,
        sequences_scores=search.sequences_scores if call.config.output_scores else None,
        scores=search.scores,
        logits=search.logits,
        beam_indices=search.beam_indices,
        past_key_values=call.engine.past_key_values,
    )
