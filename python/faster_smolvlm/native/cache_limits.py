"""The sizes of what a native model keeps in memory."""

from __future__ import annotations

from typing import TypedDict


class CacheLimits(TypedDict, total=False):
    """Keyword arguments of a `NativeSmolVLM`: the sizes of what it keeps in memory.

    `cache_positions` bounds the tokens in flight and kept for reuse, all sequences together (default: twice the
    position limit). Between calls, image tokens are kept in `feature_cache_bytes`, and keys and values of past prompts
    in `prefix_cache_bytes` of that (default: one sequence of full length); the least recently used go first.
    """

    cache_positions: int | None
    feature_cache_bytes: int
    prefix_cache_bytes: int | None
