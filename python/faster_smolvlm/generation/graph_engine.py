"""The engine over a captured decode step: prompts through the torch modules, tokens through a replayed graph."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..cache import KVCache
from ..decode_graph import BUCKETS, MAX_ROWS, DecodeGraph, decode_graph
from ..decode_weights import UnsupportedModelError
from .inputs import ModelInputs
from .torch_engine import FIRST_ROOM, TorchEngine

_log = logging.getLogger(__name__)
_BLOCK = 8
"""Tokens of a greedy block: the host looks at one block while the GPU makes the next."""


class GraphEngine(TorchEngine):
    """A `TorchEngine` whose steps are replays; its cache lies in the buffers of a `DecodeGraph`.

    It holds the graph from `prefill` to `free`. Where another generation holds it then, this one goes without.
    """

    def __init__(self, model: Any, inputs: ModelInputs, *, max_new_tokens: int, graph: DecodeGraph) -> None:
        super().__init__(model, inputs, max_new_tokens=max_new_tokens)
        self._graph = graph
        self._length = 0  # tokens of each row that the loop knows of; the cache may be ahead
        self.runs_ahead = False
        self.name = "torch"

    def _make_cache(self, rows: int, length: int) -> KVCache:
        if not self.runs_ahead:
            return super()._make_cache(rows, length)
        room = min(self._max_new_tokens, FIRST_ROOM) + 2 * _BLOCK
        cache = self._graph.reserve(rows, min(length + room, BUCKETS[-1]))
        cache.reset()
        return cache

    @torch.no_grad()
    def prefill(self) -> Tensor:
        """Encode the pictures, once, read the prompts and capture the step where that has not been done."""
        self.runs_ahead = self._graph.acquire()
        mask = self._mask
        logits = super().prefill()
        if not self.runs_ahead:
            _log.warning("decoding without a captured graph: another generation of this model is using it")
            return logits
        self.name = "graph"
        none = torch.zeros(len(logits), dtype=torch.int32, device=logits.device)
        self._graph.begin(none if mask is None else (mask != 0).int().argmax(1).int())
        self._length = self._graph.length
        return logits

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row."""
        if not self.runs_ahead:
            return super().step(tokens)
        self._graph.rewind(self._length)
        self._length += 1
        return self._graph.step(tokens).clone()

    @torch.no_grad()
    def greedy(self, tokens: Tensor) -> Iterator[Tensor]:
        """Append `tokens` and yield the likeliest tokens that follow, int64 (rows,) on the CPU, one step after the
        other.

        The next block is on its way while the tokens of one are given, so the stop check is up to two blocks behind;
        the next `step`, `select` or `greedy` goes back to where the loop stands.
        """
        self._graph.rewind(self._length)
        pending = self._graph.greedy(tokens, _BLOCK)
        while True:
            following = self._graph.greedy(pending[:, -1], _BLOCK) if self._graph.room >= _BLOCK else None
            for column in pending.cpu().unbind(1):
                self._length += 1
                yield column
            pending = self._graph.greedy(pending[:, -1], _BLOCK) if following is None else following

    @torch.no_grad()
    def select(self, rows: Sequence[int]) -> None:
        """Make the state that of these rows."""
        if not self.runs_ahead:
            super().select(rows)
            return
        self._graph.rewind(self._length)
        self._graph.select(rows)
        self.past_key_values = self._graph.cache

    def free(self) -> None:
        """Give the buffers back."""
        super().free()
        if self.runs_ahead:
            self.runs_ahead = False
            self._graph.release()


def make_engine(
    model: Any, inputs: ModelInputs, *, max_new_tokens: int, rows: int, use_cache: bool, keep_cache: bool
) -> TorchEngine:
    """Return the fastest engine that serves this call; `rows` counts copies and beams. What it is says `engine.name`.

    A GPU call that has to go without the graph says why in the log.
    """
    if model.device.type != "cuda":
        return TorchEngine(model, inputs, max_new_tokens=max_new_tokens, use_cache=use_cache, keep_cache=keep_cache)
    reason, graph = _why_not_graph(inputs, rows, use_cache and not keep_cache, max_new_tokens), None
    if not reason:
        try:
            graph = decode_graph(model)
        except UnsupportedModelError as error:
            reason = str(error)
    if graph is not None:
        return GraphEngine(model, inputs, max_new_tokens=max_new_tokens, graph=graph)
    _log.warning("decoding without a captured graph: %s", reason)
    return TorchEngine(model, inputs, max_new_tokens=max_new_tokens, use_cache=use_cache, keep_cache=keep_cache)


def _why_not_graph(inputs: ModelInputs, rows: int, plain_cache: bool, max_new_tokens: int) -> str:
    prompt = inputs.input_ids if inputs.inputs_embeds is None else inputs.inputs_embeds
    if not plain_cache:
        return "the cache was turned off, or is to be returned"
    if rows > MAX_ROWS:
        return f"{rows} rows are more than the {MAX_ROWS} it takes"
    if prompt is None or prompt.shape[1] + max_new_tokens + 2 * _BLOCK > BUCKETS[-1]:
        return f"prompt and answer may take more than the {BUCKETS[-1]} tokens it holds"
    mask = inputs.attention_mask
    if mask is not None and not bool(((mask != 0).int().diff(dim=1) >= 0).all() & (mask[:, -1] != 0).all()):
        return "the attention mask has padding that is not on the left"
    return ""
