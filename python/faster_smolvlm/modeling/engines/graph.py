"""The engine "graph": prompts through the torch modules, tokens through a captured decode step that is replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..kv_cache import KVCache
from ..ops import ATTENTION
from .capture import CaptureError
from .decode_graph import BUCKETS, MAX_ROWS, DecodeGraph, decode_graph
from .decode_weights import UnsupportedModelError
from .eager import FIRST_CAPACITY, TorchEngine
from .known_modules import why_not_as_built
from .model import GenerativeModel
from .model_inputs import ModelInputs, is_padded_on_the_left_only

_log = logging.getLogger(__name__)
_BLOCK = 8
"""Tokens of a greedy block: the host looks at one block while the GPU makes the next."""


class GraphEngine(TorchEngine):
    """A `TorchEngine` whose steps are replays; its cache lies in the buffers of a `DecodeGraph`.

    It holds the graph from `prefill` to `free`. If another generation holds it then, this one goes without.
    """

    def __init__(self, model: GenerativeModel, inputs: ModelInputs, *, max_new_tokens: int, graph: DecodeGraph) -> None:
        super().__init__(model, inputs, max_new_tokens=max_new_tokens)
        self._graph = graph
        self._length = 0  # tokens of each row that the loop knows of; the cache may hold more
        self.has_greedy = False
        self.name = "torch"

    def _make_cache(self, rows: int, length: int) -> KVCache:
        if not self.has_greedy:
            return super()._make_cache(rows, length)
        new_tokens = min(self._max_new_tokens, FIRST_CAPACITY) + 2 * _BLOCK
        try:
            cache = self._graph.prepare(rows, min(length + new_tokens, BUCKETS[-1]))
        except CaptureError as error:
            _log.warning("decoding without a captured graph: it cannot be captured, %s", error)
            self.has_greedy = False
            self._graph.release()
            return super()._make_cache(rows, length)
        cache.reset()
        return cache

    @torch.no_grad()
    def prefill(self) -> Tensor:
        """Encode the pictures, once, read the prompts, and capture the step if that has not been done."""
        self.has_greedy = self._acquired()
        mask = self._mask
        logits = super().prefill()
        if not self.has_greedy:
            return logits
        self.name = "graph"
        none = torch.zeros(len(logits), dtype=torch.int32, device=logits.device)
        self._graph.begin(none if mask is None else (mask != 0).int().argmax(1).int())
        self._length = self._graph.length
        return logits

    def _acquired(self) -> bool:
        try:
            if self._graph.acquire():
                return True
            reason = "another generation of this model is using it"
        except (UnsupportedModelError, CaptureError) as error:
            reason = str(error)
        _log.warning("decoding without a captured graph: %s", reason)
        return False

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row."""
        if not self.has_greedy:
            return super().step(tokens)
        try:
            self._graph.rewind(self._length)
            logits = self._graph.step(tokens).clone()
        except CaptureError as error:
            self._leave_graph(error)
            return super().step(tokens)
        self._length += 1
        return logits

    @torch.no_grad()
    def greedy(self, tokens: Tensor) -> Iterator[Tensor]:
        """Append `tokens` and yield the likeliest tokens that follow, int64 (rows,) on the CPU, one step after the
        other.

        The next block is on its way while the tokens of one are given, so the stop check is up to two blocks behind;
        the next `step`, `select` or `greedy` goes back to the last token that was taken.
        """
        self._graph.rewind(self._length)
        newest, following = tokens, None
        while True:
            try:
                newest, read = self._block(newest) if following is None else following
            except CaptureError as error:
                self._leave_graph(error)
                yield super().step(newest).argmax(-1)
                return
            following = self._block(newest) if self._graph.free_tokens >= _BLOCK else None
            for column in read().unbind(1):
                self._length += 1
                yield column

    def _block(self, tokens: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        """Launch a block; return its last tokens, and what waits for all of them, (rows, _BLOCK), on the host."""
        block = self._graph.greedy(tokens, _BLOCK)
        return block[:, -1], to_host(block)

    @torch.no_grad()
    def select(self, rows: Sequence[int]) -> None:
        """Make the state that of these rows."""
        if not self.has_greedy:
            super().select(rows)
            return
        self._graph.rewind(self._length)
        before = self._graph.cache
        try:
            self._graph.select(rows)
        except CaptureError as error:
            is_selected = self._graph.cache is not before
            self._leave_graph(error)
            if not is_selected:
                super().select(rows)
                return
        else:
            self.past_key_values = self._graph.cache
        index = torch.tensor(rows, dtype=torch.int64, device=self._model.device)
        self._mask = None if self._mask is None else self._mask[index]
        self._positions = None if self._positions is None else self._positions[index]

    def _leave_graph(self, error: CaptureError) -> None:
        """Go on with the modules, from a copy of what the cache of the graph holds."""
        _log.warning("decoding without a captured graph from here on: it cannot be captured, %s", error)
        held = self._graph.cache
        if held is None:
            raise error
        cache = super()._make_cache(held.batch_size, self._length)
        for new, old in zip((*cache.keys, *cache.values), (*held.keys, *held.values), strict=True):
            new[:, :, : self._length] = old[:, :, : self._length]
        cache._lengths = [self._length] * len(cache.keys)
        if self._mask is not None and self._positions is not None:
            behind = self._length - self._mask.shape[1]
            self._mask = torch.nn.functional.pad(self._mask, (0, behind), value=1)
            self._positions = self._positions + behind
        self.past_key_values, self.has_greedy, self.name = cache, False, "torch"
        self._graph.release()

    def free(self) -> None:
        """Give the buffers back."""
        super().free()
        if self.has_greedy:
            self.has_greedy = False
            self._graph.release()


def to_host(x: Tensor) -> Callable[[], Tensor]:
    """Start copying `x` and return what waits for the copy, but not for the work that the device is given later."""
    if x.device.type != "cuda":
        return x.clone
    copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    copy.copy_(x, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(x.device))

    def wait() -> Tensor:
        copied.synchronize()
        return copy

    return wait


def make_engine(
    model: GenerativeModel, inputs: ModelInputs, *, max_new_tokens: int, rows: int, use_cache: bool, keep_cache: bool
) -> TorchEngine:
    """Return the fastest engine that serves this call; `rows` counts copies and beams. `engine.name` says which it is.

    A GPU call that has to go without the graph says why in the log.
    """
    if not _captures(model.device):
        return TorchEngine(model, inputs, max_new_tokens=max_new_tokens, use_cache=use_cache, keep_cache=keep_cache)
    reason = _why_not_model(model)
    reason = reason or _why_not_graph(inputs, rows, use_cache and not keep_cache, max_new_tokens)
    graph = None
    if not reason:
        try:
            graph = decode_graph(model)
        except (UnsupportedModelError, CaptureError) as error:
            reason = str(error)
    if graph is not None:
        return GraphEngine(model, inputs, max_new_tokens=max_new_tokens, graph=graph)
    _log.warning("decoding without a captured graph: %s", reason)
    return TorchEngine(model, inputs, max_new_tokens=max_new_tokens, use_cache=use_cache, keep_cache=keep_cache)


def _captures(device: torch.device) -> bool:
    return device.type == "cuda"


def _why_not_model(model: GenerativeModel) -> str:
    """Return why the decode graph cannot stand in for the text stack of a model as it is now; "" if it can."""
    return why_not_as_built(model, model.device.type, ATTENTION)


def warm_up(model: GenerativeModel, rows: Sequence[int], tokens: int) -> str:
    """Capture what `generate` will replay for batches of these sizes; return "", or why it goes without a graph."""
    reason = _why_not_model(model)
    if reason:
        return reason
    try:
        graph = decode_graph(model)
        if not graph.acquire():
            return "another generation of this model is using the graph"
        try:
            graph.warm_up(rows, tokens)
        finally:
            graph.release()
    except (UnsupportedModelError, CaptureError) as error:
        return str(error)
    return ""


def _why_not_graph(inputs: ModelInputs, rows: int, plain_cache: bool, max_new_tokens: int) -> str:
    if not plain_cache:
        return "the cache was turned off, or is to be returned"
    if rows > MAX_ROWS:
        return f"{rows} rows are more than the {MAX_ROWS} it takes"
    if inputs.prompt.shape[1] + max_new_tokens + 2 * _BLOCK > BUCKETS[-1]:
        return f"prompt and answer may take more than the {BUCKETS[-1]} tokens it holds"
    if not is_padded_on_the_left_only(inputs.attention_mask):
        return "the attention mask has padding that is not on the left"
    return ""
