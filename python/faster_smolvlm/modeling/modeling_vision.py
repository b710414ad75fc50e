"""The vision tower: a SigLIP encoder for square patches, with positions for pictures of any aspect ratio."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoint.configuration_smolvlm import SmolVLMVisionConfig
from . import ops, reference
from .attention_mask import is_surely
from .engines.known_modules import known_to_native
from .modeling_base import SmolVLMPreTrainedModel
from .modeling_outputs import BaseModelOutputWithPooling
from .recomputing import LayerStack


@known_to_native
class SmolVLMVisionEmbeddings(nn.Module):
    """Patches to vectors: one convolution, plus a learned position of the patch within its picture."""

    def __init__(self, config: SmolVLMVisionConfig) -> None:
        super().__init__()
        if not isinstance(config.image_size, int) or not isinstance(config.patch_size, int):
            raise ValueError(
                f"image_size and patch_size must be single integers, got {config.image_size} and {config.patch_size}."
            )
        self.patch_size = config.patch_size
        self.num_patches_per_side = config.image_size // config.patch_size
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(self.num_patches_per_side**2, config.hidden_size)

    def forward(self, pixel_values: Tensor, patch_attention_mask: Tensor | None) -> Tensor:
        """Map (images, channels, height, width) to (images, patches, hidden_size), patches row by row.

        uint8 is taken as it comes from the picture: rescaling by 1/255 and normalising by 0.5 and 0.5 are part of the
        convolution.
        """
        conv = self.patch_embedding
        if pixel_values.dtype == torch.uint8:
            # Every centred byte is exact in bfloat16 too, so only the weights are rounded once more.
            centred = pixel_values.to(conv.weight.dtype) - 127.5
            patches = functional.conv2d(centred, conv.weight / 127.5, conv.bias, conv.stride)
        else:
            patches = conv(pixel_values)
        rows, columns = patches.shape[2:]
        embeddings: Tensor = patches.flatten(2).transpose(1, 2)
        if patch_attention_mask is None:
            if rows == columns == self.num_patches_per_side:
                embeddings = embeddings + self.position_embedding.weight
                return embeddings
            patch_attention_mask = torch.ones(
                pixel_values.shape[0], rows, columns, dtype=torch.bool, device=pixel_values.device
            )
        embeddings = embeddings + self.position_embedding(self._position_ids(patch_attention_mask))
        return embeddings

    def _position_ids(self, mask: Tensor) -> Tensor:
        """Place each patch, by its relative position in the unmasked part, in the square table of positions.

        `mask` is bool (images, rows, columns); the result int64 (images, rows · columns), 0 where masked. float32 is
        part of the definition: the borders between two entries of the table are where this arithmetic puts them.
        """
        side = self.num_patches_per_side
        borders = torch.arange(1 / side, 1.0, 1 / side, device=mask.device)

        def entries(positions: int, used: Tensor) -> Tensor:
            relative = torch.arange(positions, dtype=torch.float32, device=mask.device) * (1.0 / used)[:, None]
            return torch.bucketize(relative.clamp(max=1.0 - 1e-6), borders, right=True)

        row = entries(mask.shape[1], mask[:, :, 0].sum(1))
        column = entries(mask.shape[2], mask[:, 0, :].sum(1))
        ids = row[:, :, None] * side + column[:, None, :]
        return torch.where(mask, ids, 0).flatten(1)


@known_to_native
class SmolVLMVisionAttention(nn.Module):
    """Attention of every patch to every unmasked patch of its picture."""

    def __init__(self, config: SmolVLMVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scale = self.head_dim**-0.5
        self.dropout = float(config.attention_dropout)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (images, patches, hidden_size) to the same; the weights come along with "eager" only."""
        shape = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        projected = ops.project_together(hidden_states, self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (x.view(shape).transpose(1, 2) for x in projected)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if self.config._attn_implementation == "eager":
            out, weights = reference.attention(query, key, value, mask, scale=self.scale, dropout=dropout)
        else:
            out = ops.attention(
                query, key, value, mask, scale=self.scale, dropout=dropout,
                implementation=self.config._attn_implementation,
            )  # fmt: skip
        return self.out_proj(out.transpose(1, 2).flatten(2)), weights


@known_to_native
class SmolVLMVisionMLP(nn.Module):
    """Two linear maps with the activation between them."""

    def __init__(self, config: SmolVLMVisionConfig) -> None:
        super().__init__()
        self.activation_fn = ops.activation(config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map (…, hidden_size) to the same."""
        out: Tensor = self.fc2(self.activation_fn(self.fc1(hidden_states)))
        return out


@known_to_native
class SmolVLMVisionLayerNorm(nn.LayerNorm):
    """Layer norm with weight and bias, computed by `ops`."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        """Normalise the last dimension; with `residual`, that of the sum, and return (normalised sum, sum)."""
        if residual is not None:
            return ops.add_layer_norm(x, residual, self.weight, self.bias, self.eps)
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


@known_to_native
class SmolVLMEncoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and around a residual."""

    def __init__(self, config: SmolVLMVisionConfig) -> None:
        super().__init__()
        self.self_attn = SmolVLMVisionAttention(config)
        self.layer_norm1 = SmolVLMVisionLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SmolVLMVisionMLP(config)
        self.layer_norm2 = SmolVLMVisionLayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (images, patches, hidden_size) to the same, and give the attention weights if there are any."""
        attended, weights = self.self_attn(self.layer_norm1(hidden_states), mask)
        normed, hidden_states = self.layer_norm2(attended, hidden_states)
        return ops.add(self.mlp(normed), hidden_states), weights


@known_to_native
class SmolVLMEncoder(LayerStack):
    """The stack of layers."""

    def __init__(self, config: SmolVLMVisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SmolVLMEncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, states: list[Tensor] | None, attentions: list[Tensor] | None
    ) -> Tensor:
        """Run the layers; what each one is given, and its attention weights, are appended to lists that are there."""
        for index, layer in enumerate(self.layers):
            if states is not None:
                states.append(hidden_states)
            hidden_states, weights = self.run_layer(index, layer, hidden_states, mask)
            if attentions is not None and weights is not None:
                attentions.append(weights)
        return hidden_states


@known_to_native
class SmolVLMVisionTransformer(SmolVLMPreTrainedModel[SmolVLMVisionConfig]):
    """Pictures to one vector per patch."""

    config_class = SmolVLMVisionConfig
    checkpoint_prefix = "model.vision_model."

    def __init__(self, config: SmolVLMVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = SmolVLMVisionEmbeddings(config)
        self.encoder = SmolVLMEncoder(config)
        self.post_layernorm = SmolVLMVisionLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that maps patches to vectors."""
        return self.embeddings

    def forward(
        self,
        pixel_values: Tensor,
        patch_attention_mask: Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encode pictures.

        `pixel_values` (images, channels, height, width), float; `patch_attention_mask` bool (images, rows, columns),
        False for patches that are padding. `last_hidden_state` of the result is (images, patches, hidden_size), after
        the last norm; `hidden_states` are the embeddings and what each layer gives, before it. `attentions` are filled
        with attn_implementation="eager" only. A tuple with `return_dict=False`.
        """
        hidden_states = self.embeddings(pixel_values, patch_attention_mask)
        mask = None
        if patch_attention_mask is not None and not is_surely(patch_attention_mask.all()):
            mask = patch_attention_mask.flatten(1)[:, None, None, :]
        states: list[Tensor] | None = [] if self._flag("output_hidden_states", output_hidden_states) else None
        attentions: list[Tensor] | None = [] if self._flag("output_attentions", output_attentions) else None
        hidden_states = self.encoder(hidden_states, mask, states, attentions)
        output = BaseModelOutputWithPooling(
            last_hidden_state=self.post_layernorm(hidden_states),
            hidden_states=None if states is None else (*states, hidden_states),
            attentions=None if attentions is None else tuple(attentions),
        )
        return self._as_requested(output, return_dict)
