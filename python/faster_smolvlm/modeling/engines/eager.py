"""The engine "torch": steps through the torch modules as they are, on any device."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..kv_cache import KVCache
from .model import GenerativeModel
from .model_inputs import EncodedPictures, ModelInputs

# A cache has at first a capacity of this many new tokens at most and doubles when they are used up: a limit of
# thousands of tokens, set to be safe, costs memory only if it is reached.
FIRST_CAPACITY = 512


class TorchEngine:
    """Keeps the cache, the mask and the positions of one batch; see `generation.loop.Engine` for its methods.

    `model` is a `SmolVLMForConditionalGeneration`. `vision_seconds` is how long encoding the pictures took. With
    `use_cache=False` every step reads the whole sequence anew. `keep_cache` leaves the cache in `past_key_values` after
    `free`.
    """

    name = "torch"
    """Which engine served; "graph" for the one over a captured graph."""

    def __init__(
        self,
        model: GenerativeModel,
        inputs: ModelInputs,
        *,
        max_new_tokens: int,
        use_cache: bool = True,
        keep_cache: bool = False,
    ) -> None:
        self._model = model
        self._inputs: ModelInputs | None = inputs
        self._max_new_tokens = max_new_tokens
        self._use_cache = use_cache
        self._keep_cache = keep_cache
        self._mask = inputs.attention_mask
        self._positions: Tensor | None = None
        self._embeds: Tensor | None = None
        self.past_key_values: KVCache | None = None
        self.vision_seconds = 0.0

    @torch.no_grad()
    def prefill(self) -> Tensor:
        """Encode the pictures, once, and read the prompts."""
        inputs = self._inputs
        if inputs is None:
            raise RuntimeError("prefill() was called before, or after free()")
        self._inputs = None
        images = self._encode(inputs)
        embeds = inputs.inputs_embeds
        if not self._use_cache:
            embeds = self._embeds = self._merged(inputs, images)
            images = None
        rows, length = (inputs.prompt if embeds is None else embeds).shape[:2]
        if self._mask is not None:
            positions = self._mask.long().cumsum(-1) - 1
            positions = positions.masked_fill(self._mask == 0, 0)
            self._positions = positions[:, -1:]
        else:
            positions = None
        if self._use_cache:
            self.past_key_values = self._make_cache(rows, length)
        return self._forward(
            input_ids=inputs.input_ids if embeds is None else None,
            inputs_embeds=embeds,
            position_ids=positions,
            mm_encoder_outputs=images,
        )

    def _make_cache(self, rows: int, length: int) -> KVCache:
        return KVCache(
            self._model.config.text_config,
            rows,
            length + min(self._max_new_tokens, FIRST_CAPACITY),
            dtype=self._model.dtype,
            device=self._model.device,
            growable=True,
        )

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row."""
        tokens = tokens[:, None]
        if self._mask is not None and self._positions is not None:
            self._mask = torch.cat((self._mask, self._mask.new_ones(len(self._mask), 1)), 1)
            self._positions = self._positions + 1
        if self._embeds is None:
            return self._forward(input_ids=tokens, position_ids=self._positions)
        self._embeds = torch.cat((self._embeds, self._model.get_input_embeddings()(tokens)), 1)
        positions = None
        if self._mask is not None:
            positions = (self._mask.long().cumsum(-1) - 1).masked_fill(self._mask == 0, 0)
        return self._forward(inputs_embeds=self._embeds, position_ids=positions)

    @torch.no_grad()
    def select(self, rows: Sequence[int]) -> None:
        """Make the state that of these rows."""
        cache = self.past_key_values
        if cache is not None and list(rows) == list(range(cache.batch_size)):
            return
        index = torch.tensor(rows, dtype=torch.int64, device=self._model.device)
        if cache is not None and len(rows) == cache.batch_size:
            cache.reorder(index)
        elif cache is not None:
            cache.batch_select(index)
        self._mask = None if self._mask is None else self._mask[index]
        self._positions = None if self._positions is None else self._positions[index]
        self._embeds = None if self._embeds is None else self._embeds[index]

    def free(self) -> None:
        """Drop the cache and the inputs."""
        self._inputs = self._mask = self._positions = self._embeds = None
        if not self._keep_cache:
            self.past_key_values = None

    def _encode(self, inputs: ModelInputs) -> EncodedPictures | None:
        if inputs.pixel_values is None:
            return inputs.mm_encoder_outputs
        start = time.perf_counter()
        encoded = self._model.get_image_features(inputs.pixel_values, inputs.pixel_attention_mask, return_dict=True)
        if self._model.device.type == "cuda":
            torch.cuda.current_stream(self._model.device).synchronize()
        self.vision_seconds = time.perf_counter() - start
        return {"image": encoded}

    def _merged(self, inputs: ModelInputs, images: EncodedPictures | None) -> Tensor:
        """Embed the prompt with its pictures, so that later steps do not look for image tokens again."""
        embeds: Tensor
        if inputs.inputs_embeds is None:
            embeds = self._model.get_input_embeddings()(inputs.input_ids)
        else:
            embeds = inputs.inputs_embeds
        features = images["image"].pooler_output if isinstance(images, Mapping) else images
        if features is not None:
            embeds = self._model.model.merge_image_features(inputs.input_ids, embeds, features)
        return embeds

    def _forward(self, **inputs: object) -> Tensor:
        logits = self._model(
            attention_mask=self._mask,
            past_key_values=self.past_key_values,
            use_cache=self._use_cache,
            logits_to_keep=1,
            **inputs,
        ).logits
        return logits[:, -1]
