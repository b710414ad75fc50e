"""The memory that the caches of a decode graph lie in: one arena, since only one of them is in use at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kv_cache import KVCache


class StaticCache(KVCache):
    """A `KVCache` whose buffers are views of an arena; it cannot grow by itself."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.growable = False
        self.keys, self.values = keys, values
        self._lengths = [0] * len(keys)


class Arena:
    """One flat buffer for the keys and one for the values of each layer."""

    def __init__(self, layers: int, width: int, tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        self.tokens = tokens
        self._width = width
        self._flat = [torch.zeros(tokens * width, dtype=dtype, device=device) for _ in range(2 * layers)]

    def cache(self, rows: int, kv_heads: int, capacity: int) -> StaticCache:
        """Return an empty cache that starts where the arena does, for `rows` sequences of `capacity` tokens."""
        dim = self._width // kv_heads
        views = [flat[: rows * capacity * self._width].view(rows, kv_heads, capacity, dim) for flat in self._flat]
        return StaticCache(views[: len(views) // 2], views[len(views) // 2 :])
