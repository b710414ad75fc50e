"""The text stack: Llama, with grouped key-value heads and rotary positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint.configuration_smolvlm import SmolVLMTextConfig
from ..quoting import shown
from . import ops, reference
from .attention_mask import Visible, causal_mask
from .engines.known_modules import known_to_native
from .kv_cache import KVCache
from .modeling_outputs import BaseModelOutputWithPast
from .recomputing import LayerStack

FREE_TOKENS = 128
"""Tokens beyond the prompt that a cache made by a forward pass has the capacity for; then it grows."""


@known_to_native
class SmolVLMRMSNorm(nn.Module):
    """Root mean square norm with a weight, computed by `ops`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        """Normalise the last dimension; with `residual`, that of the sum, and return (normalised sum, sum)."""
        if residual is not None:
            return ops.add_rms_norm(x, residual, self.weight, self.eps)
        return ops.rms_norm(x, self.weight, self.eps)


@known_to_native
class SmolVLMRotaryEmbedding(nn.Module):
    """Positions to the cosines and sines of the rotary angles.

    The frequencies are no parameter and no buffer: they stay float32 whatever dtype the model is cast to.
    """

    def __init__(self, config: SmolVLMTextConfig) -> None:
        super().__init__()
        rope_type = (config.rope_parameters or {})["rope_type"]
        if rope_type != "default":
            raise ValueError(f"rope_type {shown(rope_type)} is not supported; the SmolVLM family uses 'default'.")
        self.theta = config.rope_theta
        self.dim = config.head_dim or 0
        self._frequencies: dict[torch.device, Tensor] = {}

    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Map int64 positions (batch or 1, S) to cos and sin, each (batch or 1, 1, S, head_dim)."""
        device = position_ids.device
        if device not in self._frequencies:
            exponents = torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim
            self._frequencies[device] = (1.0 / (self.theta**exponents)).to(device)
        angles = position_ids[:, None, :, None].float() * self._frequencies[device]
        angles = torch.cat((angles, angles), -1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


@known_to_native
class SmolVLMTextAttention(nn.Module):
    """Causal attention over the cache; several query heads share a key-value head."""

    def __init__(self, config: SmolVLMTextConfig, layer_index: int) -> None:
        super().__init__()
        self.config = config
        self.layer_index = layer_index
        self.head_dim = config.head_dim or 0
        self.scale = self.head_dim**-0.5
        self.dropout = float(config.attention_dropout or 0.0)
        width, bias = config.hidden_size, config.attention_bias
        queries, keys = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
        self.q_proj = nn.Linear(width, queries * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, keys * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, keys * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(queries * self.head_dim, width, bias=bias)

    def forward(
        self, hidden_states: Tensor, cos: Tensor, sin: Tensor, visible: Visible, cache: KVCache | None
    ) -> tuple[Tensor, Tensor | None]:
        """Map (batch, S, hidden_size) to the same; the weights come along with "eager" only."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(shape).transpose(1, 2)
        query, key = ops.rotary(query, key, cos, sin)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_index)
        mask, causal = visible
        dropout = self.dropout if self.training else 0.0
        weights = None
        if self.config._attn_implementation == "eager":
            out, weights = reference.attention(
                query, key, value, mask, scale=self.scale, causal=causal, dropout=dropout
            )
        else:
            out = ops.attention(
                query, key, value, mask, scale=self.scale, causal=causal, dropout=dropout,
                implementation=self.config._attn_implementation,
            )  # fmt: skip
        return self.o_proj(out.transpose(1, 2).flatten(2)), weights


@known_to_native
class SmolVLMTextMLP(nn.Module):
    """The gated MLP: down(act(gate(x)) · up(x))."""

    def __init__(self, config: SmolVLMTextConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self.act_fn = ops.activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, hidden_size) to the same."""
        out: Tensor = self.down_proj(ops.multiply(self.act_fn(self.gate_proj(x)), self.up_proj(x)))
        return out


@known_to_native
class SmolVLMDecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and around a residual."""

    def __init__(self, config: SmolVLMTextConfig, layer_index: int) -> None:
        super().__init__()
        self.self_attn = SmolVLMTextAttention(config, layer_index)
        self.mlp = SmolVLMTextMLP(config)
        self.input_layernorm = SmolVLMRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = SmolVLMRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden_states: Tensor, cos: Tensor, sin: Tensor, visible: Visible, cache: KVCache | None
    ) -> tuple[Tensor, Tensor | None]:
        """Map (batch, S, hidden_size) to the same, and give the attention weights if there are any."""
        attended, weights = self.self_attn(self.input_layernorm(hidden_states), cos, sin, visible, cache)
        normed, hidden_states = self.post_attention_layernorm(attended, hidden_states)
        return ops.add(self.mlp(normed), hidden_states), weights


@known_to_native
class SmolVLMTextModel(LayerStack):
    """Embeddings (of tokens and pictures) to hidden states."""

    def __init__(self, config: SmolVLMTextConfig) -> None:
        super().__init__()
        padding = config.pad_token_id
        if padding is not None and not -config.vocab_size <= padding < config.vocab_size:
            raise ValueError(f"pad_token_id {padding} lies outside the vocabulary of {config.vocab_size} tokens.")
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding)
        self.layers = nn.ModuleList(SmolVLMDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = SmolVLMRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = SmolVLMRotaryEmbedding(config)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | None = None,
        *,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutputWithPast:
        """Run the stack over `inputs_embeds` (batch, S, hidden_size).

        `attention_mask` is as in `attention_mask.causal_mask`; `position_ids` int64 (batch or 1, S), by default
        those after what the cache holds.
        """
        batch, queries = inputs_embeds.shape[:2]
        if past_key_values is None and use_cache:
            past_key_values = KVCache(
                self.config,
                batch,
                queries + FREE_TOKENS,
                dtype=inputs_embeds.dtype,
                device=inputs_embeds.device,
                growable=True,
            )
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        implementation = self.config._attn_implementation or "auto"
        visible = causal_mask(
            attention_mask,
            position_ids,
            batch=batch,
            queries=queries,
            past=past,
            cached=past_key_values is not None,
            device=inputs_embeds.device,
            keys_alone=ops.masks_keys_alone(inputs_embeds[:, None], implementation),
        )
        if visible.mask is not None and visible.mask.dtype != torch.bool:
            visible = Visible(visible.mask.to(inputs_embeds.dtype), visible.causal)
        if position_ids is None:
            position_ids = torch.arange(past, past + queries, device=inputs_embeds.device)[None]
        cos, sin = self.rotary_emb(position_ids, inputs_embeds.dtype)

        hidden_states = inputs_embeds
        states: list[Tensor] = []
        attentions: list[Tensor] = []
        # A layer that runs twice must not extend the cache twice.
        cache = None if self.training and self.recomputing is not None else past_key_values
        for index, layer in enumerate(self.layers):
            if output_hidden_states:
                states.append(hidden_states)
            hidden_states, weights = self.run_layer(index, layer, hidden_states, cos, sin, visible, cache)
            if output_attentions and weights is not None:
                attentions.append(weights)
        hidden_states = self.norm(hidden_states)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states,
            past_key_values=past_key_values,
            hidden_states=(*states, hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
