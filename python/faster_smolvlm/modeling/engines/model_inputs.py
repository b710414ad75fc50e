"""What `generate` is given for the model: one gate that checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from ...generation.caller import warn_caller
from ...generation.config import GenerationConfig


class ImageFeatures(Protocol):
    """Encoded pictures: `pooler_output` has one tensor (image tokens, hidden_size) for each row."""

    @property
    def pooler_output(self) -> list[Tensor] | None:
        """Image tokens."""


EncodedPictures: TypeAlias = Mapping[str, ImageFeatures] | Tensor | list[Tensor]
"""Pictures encoded before, `{"image": get_image_features(…)}` or the features alone."""


@dataclass
class ModelInputs:
    """One batch of prompts: `input_ids` [rows, length] or `inputs_embeds` [rows, length, hidden], and what they need.

    `attention_mask` [rows, length] is None if there is no padding. Pictures come as `pixel_values` [rows, pictures,
    3, height, width] with their `pixel_attention_mask`, or encoded in `mm_encoder_outputs`.
    """

    input_ids: Tensor | None
    inputs_embeds: Tensor | None = None
    attention_mask: Tensor | None = None
    pixel_values: Tensor | None = None
    pixel_attention_mask: Tensor | None = None
    mm_encoder_outputs: EncodedPictures | None = None

    @property
    def prompt(self) -> Tensor:
        """What the model reads, [rows, length, …]: the embeddings, or else the ids."""
        prompt = self.input_ids if self.inputs_embeds is None else self.inputs_embeds
        assert prompt is not None
        return prompt

    def to(self, device: torch.device) -> ModelInputs:
        """Return a copy whose tensors are on `device`."""
        tensors = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in tensors.items() if isinstance(value, Tensor)})


NAMES = tuple(entry.name for entry in fields(ModelInputs))
"""The arguments of `generate` that are inputs of the model."""


def check_prompts(input_ids: object, inputs_embeds: Tensor | None, vocabulary: int) -> Tensor:
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


def check_mask(inputs: ModelInputs, prompts: Tensor, config: GenerationConfig) -> Tensor | None:
    """Return the mask of the prompts, worked out from padding tokens if none was passed; None without padding."""
    mask = inputs.attention_mask
    if mask is None:
        pad_id = config.pad_id
        if prompts.shape[1] == 0 or pad_id is None or pad_id in config.eos_ids:
            return None
        mask = (prompts != pad_id).long()
        return None if bool(mask.all()) else mask
    expected = prompts.shape if inputs.inputs_embeds is None else inputs.inputs_embeds.shape[:2]
    if mask.shape != expected:
        raise ValueError(
            f"attention_mask has to be of shape {tuple(expected)}, as the prompt, got {tuple(mask.shape)}."
        )
    if bool((mask[:, -1] == 0).any()):
        warn_caller(
            "The prompts are padded on the right, so answers would continue the padding. Set "
            "processor.tokenizer.padding_side = 'left' to generate."
        )
    return None if bool((mask != 0).all()) else mask


def is_padded_on_the_left_only(mask: Tensor | None) -> bool:
    """Whether each row of `mask` [rows, length] is zeros, if any, and then ones up to its end."""
    if mask is None:
        return True
    return bool(((mask != 0).int().diff(dim=1) >= 0).all() & (mask[:, -1] != 0).all())
