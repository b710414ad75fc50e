"""The preallocated key-value cache of the text stack."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checkpoint.configuration_smolvlm import SmolVLMTextConfig


class KVCache:
    """Keys and values of every layer, in buffers of shape (batch_size, num_key_value_heads, max_length, head_dim).

    `update` appends in place and returns views, so a step of decoding copies only its own token. A cache that is full
    raises ValueError, or doubles its buffers if `growable` is set. What it stores carries no gradient.
    """

    def __init__(
        self,
        config: SmolVLMTextConfig,
        batch_size: int,
        max_length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        growable: bool = False,
    ) -> None:
        if batch_size < 1 or max_length < 1:
            raise ValueError(
                f"a KVCache needs batch_size and max_length of at least 1, got {batch_size} and {max_length}."
            )
        shape = (batch_size, config.num_key_value_heads or 1, max_length, config.head_dim or 1)
        self.growable = growable
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.values = [torch.empty_like(keys) for keys in self.keys]
        self._lengths = [0] * config.num_hidden_layers

    @property
    def batch_size(self) -> int:
        """Number of sequences."""
        return self.keys[0].shape[0]

    @property
    def max_length(self) -> int:
        """Number of tokens per sequence that the buffers hold now."""
        return self.keys[0].shape[2]

    def get_seq_length(self, layer_index: int = 0) -> int:
        """Return the number of tokens stored so far."""
        return self._lengths[layer_index]

    def update(self, key: Tensor, value: Tensor, layer_index: int) -> tuple[Tensor, Tensor]:
        """Append `key` and `value`, both (batch_size, num_key_value_heads, new_tokens, head_dim), to one layer.

        Returns everything stored in that layer, new tokens included, as views of the buffers; while gradients are
        recorded, as tensors through which they flow to the new tokens.
        """
        start = self._lengths[layer_index]
        end = start + key.shape[2]
        keys, values = self.keys[layer_index], self.values[layer_index]
        if end > keys.shape[2]:
            keys, values = self._grow(layer_index, end)
        if key.shape[0] != keys.shape[0]:
            raise ValueError(f"the KVCache was made for a batch of {keys.shape[0]}, got one of {key.shape[0]}.")
        self._lengths[layer_index] = end
        past_and_new = keys[:, :, :end], values[:, :, :end]
        if torch.is_grad_enabled() and key.requires_grad:
            # Buffers that later updates overwrite cannot be part of a graph: attend to a copy.
            past_and_new = torch.cat((keys[:, :, :start], key), 2), torch.cat((values[:, :, :start], value), 2)
        keys[:, :, start:end] = key.detach()
        values[:, :, start:end] = value.detach()
        return past_and_new

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens; a negative `length` forgets the last `-length` ones."""
        for layer, stored in enumerate(self._lengths):
            self._lengths[layer] = min(stored, length if length >= 0 else max(stored + length, 0))

    def reset(self) -> None:
        """Forget every token; the buffers stay."""
        self.crop(0)

    def reorder(self, index: Tensor) -> None:
        """Let sequence i become what sequence `index[i]` was; `index` is int64 of shape (batch_size,)."""
        for layer, length in enumerate(self._lengths):
            for buffer in (self.keys[layer], self.values[layer]):
                stored = buffer[:, :, :length]
                stored.copy_(stored.index_select(0, index))

    def batch_select(self, index: Tensor) -> None:
        """Keep the sequences `index` (int64, any length, repeats allowed): drops finished rows, repeats a prompt."""
        for layer in range(len(self._lengths)):
            self.keys[layer] = self.keys[layer].index_select(0, index)
            self.values[layer] = self.values[layer].index_select(0, index)

    def _grow(self, layer_index: int, needed: int) -> tuple[Tensor, Tensor]:
        stored, capacity = self._lengths[layer_index], self.keys[layer_index].shape[2]
        if not self.growable:
            raise ValueError(
                f"the KVCache holds {capacity} tokens, but {needed} are needed: make it with a larger max_length, or "
                "with growable=True."
            )
        grown = []
        for old in (self.keys[layer_index], self.values[layer_index]):
            new = old.new_empty((*old.shape[:2], max(needed, 2 * capacity), old.shape[3]))
            new[:, :, :stored] = old[:, :, :stored]
            grown.append(new)
        self.keys[layer_index], self.values[layer_index] = grown
        return grown[0], grown[1]
