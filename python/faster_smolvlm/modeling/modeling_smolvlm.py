"""SmolVLM as torch modules: names of modules and parameters as in the checkpoints, outputs as in Transformers."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.configuration_smolvlm import SmolVLMConfig
from ..checkpoint.weights import EMBEDDING, HEAD
from ..generation import GenerationConfig
from ..integers import count_of, optional_count
from . import ops
from .attention_mask import is_surely
from .engines.decode_graph import GraphHolder
from .engines.known_modules import known_to_native
from .engines.native_twin import NativeTwin
from .generate import GenerationMixin
from .kv_cache import KVCache
from .modeling_base import SmolVLMPreTrainedModel
from .modeling_outputs import BaseModelOutputWithPooling, SmolVLMBaseModelOutputWithPast, SmolVLMCausalLMOutputWithPast
from .modeling_text import SmolVLMTextModel
from .modeling_vision import SmolVLMVisionTransformer

__all__ = [
    "SmolVLMForConditionalGeneration",
    "SmolVLMModel",
    "SmolVLMPreTrainedModel",
    "SmolVLMVisionTransformer",
]


@known_to_native
class SmolVLMSimpleMLP(nn.Module):
    """One linear map from shuffled patches to the width of the text stack."""

    def __init__(self, config: SmolVLMConfig) -> None:
        super().__init__()
        width = config.vision_config.hidden_size * config.scale_factor**2
        self.proj = nn.Linear(width, config.text_config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, vision hidden_size · scale_factor²) to (…, text hidden_size)."""
        out: Tensor = self.proj(x)
        return out


@known_to_native
class SmolVLMConnector(nn.Module):
    """Patches to image tokens: `scale_factor ** 2` neighbours become one vector of the text stack."""

    def __init__(self, config: SmolVLMConfig) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        self.modality_projection = SmolVLMSimpleMLP(config)

    def forward(self, image_hidden_states: Tensor) -> Tensor:
        """Map (images, patches, vision hidden_size) to (images, patches / scale_factor², text hidden_size)."""
        projection = self.modality_projection
        return ops.pixel_shuffle_project(image_hidden_states, projection, projection.proj, self.scale_factor)


@known_to_native
class SmolVLMModel(SmolVLMPreTrainedModel[SmolVLMConfig]):
    """Vision tower, connector and text stack: token ids and pictures to hidden states."""

    config_class = SmolVLMConfig
    checkpoint_prefix = "model."

    def __init__(self, config: SmolVLMConfig) -> None:
        super().__init__(config)
        vision = config.vision_config
        self.vision_model = SmolVLMVisionTransformer(vision)
        self.connector = SmolVLMConnector(config)
        self.text_model = SmolVLMTextModel(config.text_config)
        self.image_token_id = config.image_token_id
        self.image_seq_len = self.vision_model.embeddings.num_patches_per_side**2 // config.scale_factor**2
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embeddings."""
        return self.text_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.text_model.embed_tokens = value  # type: ignore[assignment]

    def get_image_features(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encode pictures into vectors of the text stack.

        `pixel_values` (batch, pictures, channels, height, width); `pixel_attention_mask` (batch, pictures, height,
        width), not zero for real pixels. Pictures whose values are all exactly 0 are padding and dropped; if all are,
        the first one stays. uint8 pixels (`output_dtype="uint8"` of the image processor) are rescaled by 1/255 and
        normalised by 0.5 and 0.5 here; black is 0 there, so what is padding is read from the mask. `pooler_output` of
        the result is a list with one tensor (image tokens, hidden_size) per row of the batch, `last_hidden_state`
        (kept pictures, patches, vision hidden_size).
        """
        if pixel_values.ndim != 5:
            raise ValueError(
                "pixel_values must have the shape (batch, pictures, channels, height, width): not enough or too many "
                f"values to unpack (expected 5, got {pixel_values.ndim}: {tuple(pixel_values.shape)})."
            )
        batch, pictures = pixel_values.shape[:2]
        is_uint8 = pixel_values.dtype == torch.uint8
        pixel_values = (pixel_values if is_uint8 else pixel_values.to(self.dtype)).flatten(0, 1)
        shown = pixel_attention_mask.flatten(0, 1) if is_uint8 and pixel_attention_mask is not None else pixel_values
        real = shown.flatten(1).ne(0).any(1)
        real[0] |= ~real.any()
        kept_per_row = real.view(batch, pictures).sum(1).tolist()
        pixel_values = pixel_values[real]
        patch_mask = None
        if pixel_attention_mask is not None:
            patch_mask = self._patch_mask(pixel_attention_mask.flatten(0, 1)[real])
        output: BaseModelOutputWithPooling = self.vision_model(
            pixel_values,
            patch_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        features = self.connector(output.last_hidden_state)
        output.pooler_output = [rows.flatten(0, 1) for rows in features.split(kept_per_row)]
        return self._as_requested(output, return_dict)

    def _patch_mask(self, pixel_mask: Tensor) -> Tensor | None:
        """Mark the patches of (pictures, height, width) with a real pixel: bool (pictures, rows, columns), or None."""
        if is_surely(pixel_mask.all()):
            return None
        patch = self.vision_model.embeddings.patch_size
        rows, columns = pixel_mask.shape[1] // patch, pixel_mask.shape[2] // patch
        pixels = pixel_mask[:, : rows * patch, : columns * patch].ne(0)
        return pixels.reshape(-1, rows, patch, columns, patch).any(4).any(2)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | Tensor | list[Tensor] | None = None,
        use_cache: bool | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SmolVLMBaseModelOutputWithPast:
        """Run the model; the arguments are those of `SmolVLMForConditionalGeneration.forward`."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if pixel_values is not None and mm_encoder_outputs is not None:
            raise ValueError("You cannot specify both pixel_values and mm_encoder_outputs at the same time")
        if inputs_embeds is None:
            inputs_embeds = self.text_model.embed_tokens(input_ids)

        image_output: BaseModelOutputWithPooling | None = None
        features: Tensor | list[Tensor] | None = None
        if pixel_values is not None:
            image_output = self.get_image_features(pixel_values, pixel_attention_mask, return_dict=True)
            features = image_output.pooler_output
        elif isinstance(mm_encoder_outputs, dict):
            image_output = mm_encoder_outputs.get("image")
            features = image_output.pooler_output if image_output is not None else None
        else:
            features = mm_encoder_outputs
        if features is not None:
            inputs_embeds = self.merge_image_features(input_ids, inputs_embeds, features)

        if use_cache is None:
            use_cache = self.config.use_cache
        if self.training and self.text_model.recomputing is not None:
            use_cache = False
        output = self.text_model(
            inputs_embeds,
            attention_mask,
            position_ids,
            past_key_values,
            use_cache=use_cache,
            output_attentions=self._flag("output_attentions", output_attentions),
            output_hidden_states=self._flag("output_hidden_states", output_hidden_states),
        )
        return self._as_requested(
            SmolVLMBaseModelOutputWithPast(**output, image_hidden_states=image_output),
            return_dict,
        )

    def merge_image_features(
        self, input_ids: Tensor | None, inputs_embeds: Tensor, features: Tensor | list[Tensor]
    ) -> Tensor:
        """Overwrite the embeddings at the image tokens, in order, by the features of the pictures."""
        if isinstance(features, (list, tuple)):
            features = torch.cat(list(features))
        features = features.to(device=inputs_embeds.device, dtype=inputs_embeds.dtype)
        features = features.reshape(-1, features.shape[-1])
        if input_ids is not None:
            is_image = input_ids == self.config.image_token_id
        else:
            token = torch.tensor(self.config.image_token_id, device=inputs_embeds.device)
            is_image = (inputs_embeds == self.text_model.embed_tokens(token)).all(-1)
        tokens, count = int(is_image.sum()), features.shape[0]
        if torch.compiler.is_compiling():
            torch._check_value(tokens == count, lambda: "Image features and image tokens do not match")
        elif tokens * inputs_embeds.shape[-1] != features.numel():
            raise ValueError(f"Image features and image tokens do not match, tokens: {tokens}, features: {count}")
        return inputs_embeds.masked_scatter(is_image.unsqueeze(-1), features)


@known_to_native
class SmolVLMForConditionalGeneration(GenerationMixin, SmolVLMPreTrainedModel[SmolVLMConfig]):
    """SmolVLM with its language head: token ids and pictures to the scores of the next tokens."""

    config_class = SmolVLMConfig
    accepts_loss_kwargs = True
    loss_type: ClassVar[str] = "ForConditionalGeneration"
    """By this name Transformers' `Trainer` knows that `forward` shifts the labels, and how many of them count."""
    _tied_weights_keys: ClassVar[dict[str, str]] = {HEAD: EMBEDDING}  # peft: an adapter of one is an adapter of both
    model: SmolVLMModel

    def __init__(self, config: SmolVLMConfig) -> None:
        super().__init__(config)
        self.generation_config = GenerationConfig.from_model_config(config)
        self._native = NativeTwin()
        self._decode_graph = GraphHolder()
        self.model = SmolVLMModel(config)
        self.image_token_id = config.image_token_id
        self.vocab_size = config.text_config.vocab_size
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embeddings."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """Return the language head."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the language head."""
        self.lm_head = value  # type: ignore[assignment]

    def resize_token_embeddings(self, new_num_tokens: int, pad_to_multiple_of: int | None = None) -> nn.Embedding:
        """Change the size of the vocabulary, in the embeddings, the language head and the config.

        New rows are the mean of the old ones, so that a new token begins as an average one. Returns the embeddings.
        """
        new_num_tokens = count_of("new_num_tokens", new_num_tokens, 1)
        multiple = optional_count("pad_to_multiple_of", pad_to_multiple_of, 1)
        if multiple is not None:
            new_num_tokens = -(-new_num_tokens // multiple) * multiple
        embeddings, head = self.get_input_embeddings(), self.lm_head
        embeddings.weight = _resized(embeddings.weight, new_num_tokens)
        embeddings.num_embeddings = new_num_tokens
        head.weight = _resized(head.weight, new_num_tokens)
        head.out_features = new_num_tokens
        self.tie_weights()
        self.vocab_size = self.config.text_config.vocab_size = new_num_tokens
        return embeddings

    def get_image_features(
        self, pixel_values: Tensor, pixel_attention_mask: Tensor | None = None, **flags: bool | None
    ) -> BaseModelOutputWithPooling:
        """See `SmolVLMModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, pixel_attention_mask, **flags)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | Tensor | list[Tensor] | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        *,
        num_items_in_batch: int | Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SmolVLMCausalLMOutputWithPast:
        """Score the next tokens.

        Args:
            input_ids: int64 (batch, S); or `inputs_embeds`, float (batch, S, hidden_size). Exactly one of them.
            attention_mask: (batch, cached + S) with 1 for tokens and 0 for padding; or 4-D, broadcast to
                (batch, heads, S, cached + S), bool (True attends) or added to the scores, used as it is.
            position_ids: int64 (batch or 1, S); by default those after what the cache holds.
            past_key_values: a `KVCache`, which is extended in place.
            pixel_values: float (batch, pictures, channels, height, width), whose vectors replace the image tokens in
                order. All-zero pictures are padding.
            pixel_attention_mask: (batch, pictures, height, width), not zero for real pixels.
            mm_encoder_outputs: `{"image": get_image_features(…)}`, or the features alone, in place of `pixel_values`.
            labels: int64 (batch, S), -100 for tokens that are not learned; shifted here. Image tokens count unless
                they are -100.
            use_cache: whether to make a cache if none is given; by default as the config says.
            logits_to_keep: the positions whose scores are returned: the last n (0: all), a 1-D tensor for every row, an
                integer 2-D one for each, or a bool (batch, S) mask, which flattens them.
            num_items_in_batch: divides the summed loss in place of the number of labels.
            output_attentions: return the weights of the text stack; filled with attn_implementation="eager" only.
            output_hidden_states: return the embeddings and the output of every layer, the last one after the norm.
            return_dict: False for a plain tuple.

        Raises:
            ValueError: inputs that contradict each other, or image tokens that do not match the pictures.
        """
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            pixel_attention_mask=pixel_attention_mask,
            mm_encoder_outputs=mm_encoder_outputs,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(_keep(output.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = _next_token_loss(logits, labels, num_items_in_batch)
        return self._as_requested(
            SmolVLMCausalLMOutputWithPast(
                loss=loss,
                logits=logits,
                past_key_values=output.past_key_values,
                hidden_states=output.hidden_states,
                attentions=output.attentions,
                image_hidden_states=output.image_hidden_states,
            ),
            return_dict,
        )


def _resized(weight: Tensor, rows: int) -> nn.Parameter:
    """Return the first `rows` rows of a (tokens, width) weight, filled up with the mean of all."""
    old = weight.detach()
    new = torch.cat((old[:rows], old.mean(0, keepdim=True).expand(max(rows - len(old), 0), -1)))
    return nn.Parameter(new, requires_grad=weight.requires_grad)


def _keep(hidden_states: Tensor, positions: int | Tensor) -> Tensor:
    """Select positions of (batch, S, width); see `logits_to_keep`."""
    if isinstance(positions, int):
        return hidden_states[:, -positions:]
    if positions.ndim == 2 and positions.dtype == torch.bool:
        return hidden_states[positions]
    if positions.ndim == 2:
        return torch.take_along_dim(hidden_states, positions[..., None], dim=1)
    return hidden_states[:, positions]


def _next_token_loss(logits: Tensor, labels: Tensor, num_items_in_batch: int | Tensor | None) -> Tensor:
    """Cross entropy in float32 of each token given those before it, over the labels that are not -100."""
    targets = F.pad(labels, (0, 1), value=-100)[..., 1:].reshape(-1).to(logits.device)
    scores = logits.float().view(-1, logits.shape[-1])
    if num_items_in_batch is None:
        return F.cross_entropy(scores, targets)
    if isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(scores.device)
    return F.cross_entropy(scores, targets, reduction="sum") / num_items_in_batch
