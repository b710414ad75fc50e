"""`GenerationMixin`: `generate` of the torch model, with the arguments of Transformers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..hub import Checkpoint
from ..modeling_outputs import ModelOutput
from .config import FILE_NAME, GenerationConfig, lengths, resolve
from .logits import LogitsProcessor, build_processors
from .loop import Decoding
from .sampling import Sampler, make_generator
from .stopping import StoppingCriterion, build_stop_rules
from .streamers import Streamer
from .torch_engine import ModelInputs, TorchEngine


class GenerateOutput(ModelOutput):
    """What `generate(return_dict_in_generate=True)` returns: `sequences` int64 [rows, length], padded after their end.

    `scores` (after the processors) and `logits` (before) hold one float32 [rows, vocabulary] a step where asked for.
    """

    sequences: Tensor
    scores: tuple[Tensor, ...] | None
    logits: tuple[Tensor, ...] | None
    past_key_values: Any


class GenerationMixin:
    """Adds `generate` to a model with `forward`, `get_image_features`, `config`, `device` and `dtype`."""

    generation_config: GenerationConfig

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
        needed for `stop_strings`; `generator` or `seed` make drawing repeatable. All other arguments are settings of
        `GenerationConfig`, and win over the `generation_config` given and over the model's own.

        Returns int64 [rows * num_return_sequences, length] with the prompt (without, after `inputs_embeds` alone), or a
        `GenerateOutput`. Raises ValueError for arguments that are unknown or do not fit, NotImplementedError for
        settings of Transformers that this package does not have.
        """
        try:
            call = self.start_generation(inputs, generation_config, logits_processor, stopping_criteria, **arguments)
            with call:
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
        sequences: Tensor = call.ids
        if not call.returns_dict:
            return sequences
        return GenerateOutput(
            sequences=sequences, scores=call.scores, logits=call.logits, past_key_values=call.engine.past_key_values
        )

    def start_generation(
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
        **settings: Any,
    ) -> Decoding[TorchEngine]:
        """Check the arguments of `generate` and return the call, whose steps are made by iterating over it."""
        if past_key_values is not None:
            raise NotImplementedError("generate() makes its own cache: past_key_values is not supported. Leave it out.")
        if inputs is not None and input_ids is not None:
            raise ValueError("inputs and input_ids are the same argument: pass one of them.")
        input_ids = inputs if input_ids is None else input_ids
        if pixel_values is not None and mm_encoder_outputs is not None:
            raise ValueError("pass either pixel_values or mm_encoder_outputs, the pictures encoded, not both.")
        config = resolve(settings, generation_config, self.generation_config)
        if (config.num_beams or 1) != 1:
            raise NotImplementedError(f"generate(): num_beams={config.num_beams} is not supported yet; leave it at 1.")
        device: torch.device = self.device  # type: ignore[attr-defined]
        prompts = _check_prompts(input_ids, inputs_embeds, self.get_input_embeddings().num_embeddings)  # type: ignore[attr-defined]
        prompts = prompts.to(device)
        eos_ids = config.eos_ids
        pad_id = config.pad_token_id if config.pad_token_id is not None else (eos_ids[0] if eos_ids else None)
        mask = _check_mask(attention_mask, prompts, inputs_embeds, pad_id, eos_ids)
        length = prompts.shape[1] if inputs_embeds is None else inputs_embeds.shape[1]
        most, least = lengths(config, prompt_length=length)
        config = replace(config, min_new_tokens=least)

        copies = config.num_return_sequences or 1
        rows = prompts.shape[0] * copies
        expanded = prompts.repeat_interleave(copies, 0)
        padding = None if mask is None else (mask != 0).int().argmax(1).repeat_interleave(copies).tolist()
        engine = TorchEngine(
            self,
            ModelInputs(
                input_ids=None if inputs_embeds is not None else prompts,
                inputs_embeds=_on(device, inputs_embeds),
                attention_mask=None if mask is None or bool((mask != 0).all()) else mask.to(device),
                pixel_values=_on(device, pixel_values),
                pixel_attention_mask=_on(device, pixel_attention_mask),
                mm_encoder_outputs=mm_encoder_outputs,
            ),
            max_new_tokens=most,
            use_cache=config.use_cache is not False or inputs_embeds is not None,
            keep_cache=bool(config.return_dict_in_generate),
        )
        return Decoding(
            engine,
            prompts,
            copies=copies,
            max_new_tokens=most,
            pad_id=pad_id if eos_ids else None,
            processors=build_processors(
                config, prompt_length=prompts.shape[1], padding=padding, custom=list(logits_processor or ())
            ),
            sees_every_row=bool(logits_processor or stopping_criteria or config.return_dict_in_generate),
            sampler=Sampler(bool(config.do_sample), rows, make_generator(prompts, seed, generator)),
            stop=build_stop_rules(
                config,
                max_new_tokens=most,
                prompts=expanded.tolist() if config.stop_strings is not None else [],
                tokenizer=tokenizer,
                criteria=list(stopping_criteria or ()),
            ),
            config=config,
        )


def _on(device: torch.device, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _check_prompts(input_ids: Tensor | None, inputs_embeds: Tensor | None, vocabulary: int) -> Tensor:
    """Return the ids [rows, length] that the answer is appended to; [rows, 0] for embeddings alone."""
    if inputs_embeds is not None and (inputs_embeds.ndim != 3 or inputs_embeds.shape[1] == 0):
        raise ValueError(
            f"inputs_embeds has to be of shape (rows, length, hidden_size), got {tuple(inputs_embeds.shape)}."
        )
    if input_ids is None:
        if inputs_embeds is None:
            raise ValueError("generate() needs a prompt: pass input_ids (from the processor) or inputs_embeds.")
        return torch.zeros(inputs_embeds.shape[0], 0, dtype=torch.int64)
    if not isinstance(input_ids, Tensor):
        raise ValueError(
            f"input_ids has to be a tensor, got {type(input_ids).__name__}: call the processor with return_tensors='pt'"
        )
    if input_ids.ndim != 2 or input_ids.shape[0] == 0 or input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            "input_ids has to hold integers in the shape (rows, length), got "
            f"{input_ids.dtype} of shape {tuple(input_ids.shape)}."
        )
    if input_ids.shape[1] == 0 and inputs_embeds is None:
        raise ValueError("input_ids is empty: the prompt needs at least one token.")
    if input_ids.numel() > 0 and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocabulary:
        raise ValueError(
            f"input_ids has to hold ids from 0 to {vocabulary - 1}, but they go from {int(input_ids.min())} to "
            f"{int(input_ids.max())}: the tokenizer is not that of the model."
        )
    return input_ids.long()


def _check_mask(
    attention_mask: Tensor | None,
    prompts: Tensor,
    inputs_embeds: Tensor | None,
    pad_id: int | None,
    eos_ids: Sequence[int],
) -> Tensor | None:
    """Return the mask of the prompts, worked out from padding tokens where none was passed; None without padding."""
    if attention_mask is None:
        if prompts.shape[1] == 0 or pad_id is None or pad_id in eos_ids:
            return None
        mask = (prompts != pad_id).long()
        return None if bool(mask.all()) else mask
    expected = prompts.shape if inputs_embeds is None else inputs_embeds.shape[:2]
    if attention_mask.shape != expected:
        raise ValueError(
            f"attention_mask has to be of shape {tuple(expected)}, as the prompt, got {tuple(attention_mask.shape)}."
        )
    if bool((attention_mask[:, -1] == 0).any()):
        warnings.warn(
            "The prompts are padded on the right, so answers would continue the padding. Set "
            "processor.tokenizer.padding_side = 'left' to generate.",
            stacklevel=4,
        )
    return attention_mask
