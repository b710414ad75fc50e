"""One decode step of the text stack as a fixed list of kernel launches, captured once and replayed for every token.

The launches read positions and tokens from device memory, so one capture serves every length up to the capacity of its
cache. There is one capture for each batch size and each bucket of capacity, made at first use; all of them work in the
same buffers, and their caches lie in one arena, since only one runs at a time.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .arena import Arena, StaticCache
from .capture import Capture, CaptureError, CudaCapture, failures, mark, persistent
from .decode_weights import UnsupportedModelError, fingerprint, gather, refresh
from .model import GenerativeModel

BUCKETS = (512, 1024, 2048, 4096, 8192)
MAX_ROWS = 16
"""Beyond this, reading the weights once for each row costs more than a matrix product that shares them."""

_NEVER = -1.0e30


class DecodeGraph:
    """The decode step of one model. One generation at a time holds it: `acquire`, then `begin`, `step`, `release`.

    It does not keep the model alive. `int8=True` decodes with rounded copies of the matrices, made anew at `acquire`.

    Raises:
        UnsupportedModelError: see `decode_weights.gather`.
        CaptureError: there is no memory for the buffers.
    """

    def __init__(self, model: GenerativeModel, *, int8: bool = False, capture: Capture | None = None) -> None:
        self._owner = weakref.ref(model)
        self._int8 = int8
        self._lock = threading.Lock()
        self._given_capture = capture
        self._load()

    @property
    def _model(self) -> GenerativeModel:
        model = self._owner()
        if model is None:
            raise RuntimeError("the model of this decode graph is gone")
        return model

    def serves(self, model: GenerativeModel) -> bool:
        """Whether this is the graph of `model` itself, not of one that it was copied from."""
        return self._owner() is model

    def _load(self) -> None:
        try:
            with persistent():
                self._make_buffers()
        except torch.OutOfMemoryError as error:
            raise CaptureError(f"no memory for the buffers of the decode step: {error}") from error

    def _make_buffers(self) -> None:
        model = self._model
        self._capture: Capture = self._given_capture or CudaCapture(model.device)
        self._fingerprint: tuple[int, ...] = ()
        self._replays: dict[tuple[int, int], Callable[[], None]] = {}
        self._arena: Arena | None = None
        self._weights = w = gather(model, int8=self._int8)
        self._angles = model.model.text_model.rotary_emb
        self._rotary = (torch.empty(0), torch.empty(0))
        self._after_last: Callable[[], None] = lambda: None
        self.cache: StaticCache | None = None
        device, dtype = model.device, model.dtype
        from ...kernels.decode_attention import split_count
        from ...kernels.launch import supports_pdl
        from ...kernels.lm_head_argmax import head_blocks

        self._pdl = supports_pdl(device)

        def buffer(*shape: int, kind: torch.dtype = dtype) -> Tensor:
            return torch.zeros(MAX_ROWS, *shape, dtype=kind, device=device)

        blocks = head_blocks(w.head.weight)
        splits = split_count(w.kv_heads, device)
        self._x, self._q = buffer(w.hidden), buffer(w.heads, w.head_dim)
        self._partial_o = buffer(w.heads, splits, w.head_dim, kind=torch.float32)
        self._partial_l = buffer(w.heads, splits, kind=torch.float32)
        self._middle, self._logits = buffer(w.intermediate), buffer(w.vocabulary)
        self._best, self._best_index = buffer(blocks, kind=torch.float32), buffer(blocks, kind=torch.int32)
        self._token, self._tokens = buffer(kind=torch.int64), buffer(BUCKETS[0], kind=torch.int64)
        self._first, self._position, self._step = (buffer(kind=torch.int32) for _ in range(3))
        self._fingerprint = fingerprint(model)

    def acquire(self) -> bool:
        """Take the buffers for one generation, after what the last one left running; False if another one has them.

        Raises:
            UnsupportedModelError: the model was changed to one that the kernels do not serve.
            CaptureError: there is no memory for the buffers.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._after_last()
            if fingerprint(self._model) != self._fingerprint:
                self._load()
            elif self._int8:
                refresh(self._weights, self._model)
        except BaseException:
            self._lock.release()
            raise
        return True

    def prepare(self, rows: int, tokens: int) -> StaticCache:
        """`reserve`, and capture the step for that cache.

        Raises:
            CaptureError: it cannot be captured; what the cache held is still there.
        """
        cache = self.reserve(rows, tokens)
        self._replay()
        return cache

    def release(self) -> None:
        """Give the buffers back; the captures stay. Blocks that were begun may still run."""
        self.cache = None
        self._after_last = mark(self._x.device)
        self._lock.release()

    def reserve(self, rows: int, tokens: int) -> StaticCache:
        """Make a cache for `rows` sequences of `tokens` tokens, in the arena; what an earlier one held is kept.

        Raises:
            ValueError: more rows than `MAX_ROWS`, or more tokens than the largest bucket.
            CaptureError: there is no memory for it; what the cache held is still there.
        """
        if rows > MAX_ROWS:
            raise ValueError(f"the decode graph takes at most {MAX_ROWS} rows, got {rows}")
        if tokens > BUCKETS[-1]:
            raise ValueError(f"the decode graph holds at most {BUCKETS[-1]} tokens a row, got {tokens}")
        capacity = next(bucket for bucket in BUCKETS if bucket >= tokens)
        try:
            with persistent():
                return self._reserve(rows, capacity)
        except torch.OutOfMemoryError as error:
            raise CaptureError(f"no memory for {rows} rows of {capacity} tokens: {error}") from error

    def _reserve(self, rows: int, capacity: int) -> StaticCache:
        old, w = self.cache, self._weights
        length = old.get_seq_length() if old is not None else 0
        kept = [t[:rows, :, :length] for t in (*old.keys, *old.values)] if old is not None and length else []
        if self._arena is None or self._arena.tokens < rows * capacity:
            self._replays.clear()
            if not kept:
                self._arena = self.cache = None  # its memory goes before the new one's is taken
            self._arena = Arena(len(w.layers), w.kv_heads * w.head_dim, rows * capacity, self._x.dtype, self._x.device)
        else:
            kept = [stored.clone() for stored in kept]  # old and new lie in the same memory
        self._extend_rotary(capacity)
        self.cache = cache = self._arena.cache(rows, w.kv_heads, capacity)
        for buffer, stored in zip((*cache.keys, *cache.values), kept, strict=False):
            buffer[: stored.shape[0], :, :length] = stored
        cache._lengths = [length] * len(w.layers)
        return cache

    def _extend_rotary(self, capacity: int) -> None:
        if self._rotary[0].shape[0] >= capacity:
            return
        self._replays.clear()
        positions = torch.arange(capacity, device=self._x.device)[None]
        cos, sin = self._angles(positions, self._x.dtype)
        self._rotary = cos[0, 0].contiguous(), sin[0, 0].contiguous()

    def warm_up(self, rows: Iterable[int], tokens: int) -> None:
        """Capture the step for each of these numbers of rows, with a capacity for `tokens` tokens and less.

        Raises:
            ValueError: see `reserve`.
            CaptureError: it cannot be captured.
        """
        rows = list(rows)
        if tokens > BUCKETS[-1]:
            raise ValueError(f"the decode graph holds at most {BUCKETS[-1]} tokens a row, got {tokens}")
        capacities = [size for size in BUCKETS if size < tokens] + [next(size for size in BUCKETS if size >= tokens)]
        # The largest first: an arena that grows drops what was captured.
        for size, count in sorted(((s, n) for s in capacities for n in rows), key=lambda x: -x[0] * x[1]):
            self.cache = None
            self.prepare(count, size)

    def begin(self, first: Tensor) -> None:
        """Start decoding after a prompt that fills the cache; `first` int (rows,) is the slot of each row's first
        token.
        """
        cache = self._held()
        rows = cache.batch_size
        self._replay()
        self._first[:rows] = first
        self._position.fill_(cache.get_seq_length() - 1)

    @property
    def length(self) -> int:
        """Tokens of each row in the cache, padding included."""
        return self._held().get_seq_length()

    @property
    def free_tokens(self) -> int:
        """Tokens that fit before the cache moves to the next bucket."""
        return self._held().max_length - self.length

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens of each row."""
        cache = self._held()
        if length == cache.get_seq_length():
            return
        if not 0 < length < cache.get_seq_length():
            raise ValueError(f"cannot go back to {length} tokens: the cache holds {cache.get_seq_length()}")
        cache.crop(length)
        self._position.fill_(length - 1)

    def step(self, tokens: Tensor) -> Tensor:
        """Append `tokens` int64 (rows,); return the logits after them, (rows, vocabulary), a view of a buffer."""
        replay = self._advance(tokens, 1)
        replay()
        return self._logits[: len(tokens)]

    def greedy(self, tokens: Tensor, count: int) -> Tensor:
        """Append `tokens`, then the likeliest ones; return those that follow, int64 (rows, count), a new tensor.

        No value is read on the host: the caller looks at a block while the next one runs.
        """
        rows = len(tokens)
        if not 1 <= count <= self._tokens.shape[1]:
            raise ValueError(f"a block has 1 to {self._tokens.shape[1]} tokens, got {count}")
        replay = self._advance(tokens, count)
        self._step.zero_()
        for _ in range(count):
            replay()
        best, index = self._best[:rows], self._best_index[:rows]
        ties = index.masked_fill(best != best.amax(1, keepdim=True), self._weights.vocabulary)
        last = ties.amin(1, keepdim=True).clamp_max(self._weights.vocabulary - 1).long()  # all NaN: as `advance` does
        return torch.cat((self._tokens[:rows, 1:count], last), 1)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; they may repeat.

        Raises:
            CaptureError: there is no memory for it, and `cache` is what it was; or the step cannot be captured, and
                `cache` is a new one of these rows.
        """
        old = self._held()
        try:
            with persistent():
                self._select(old, list(rows))
        except (torch.OutOfMemoryError, CaptureError) as error:
            self.cache = old
            raise CaptureError(f"no memory for {len(rows)} rows: {error}") from error
        self._replay()

    def _select(self, old: StaticCache, rows: list[int]) -> None:
        index = torch.tensor(rows, dtype=torch.int64, device=self._x.device)
        length = old.get_seq_length()
        kept = [t[:, :, :length].index_select(0, index) for t in (*old.keys, *old.values)]
        first, position = self._first[index], self._position[index]
        self.cache = None
        cache = self.reserve(len(rows), old.max_length)
        cache._lengths = [length] * len(cache.keys)
        for buffer, stored in zip((*cache.keys, *cache.values), kept, strict=True):
            buffer[:, :, :length] = stored
        self._first[: len(rows)] = first
        self._position[: len(rows)] = position

    def _held(self) -> StaticCache:
        if self.cache is None:
            raise RuntimeError("the decode graph holds no cache: call reserve() first")
        return self.cache

    def _advance(self, tokens: Tensor, count: int) -> Callable[[], None]:
        """Make `tokens` the choice that the next replay takes up, with a capacity for `count` of them."""
        cache = self._held()
        rows, needed = len(tokens), cache.get_seq_length() + count
        if rows != cache.batch_size:
            raise ValueError(f"the decode graph holds {cache.batch_size} rows, got {rows} tokens")
        if needed > cache.max_length:
            first, position = self._first.clone(), self._position.clone()
            cache = self.reserve(rows, needed)
            self._replay()
            self._first.copy_(first)
            self._position.copy_(position)
        replay = self._replay()
        cache._lengths = [needed] * len(cache.keys)
        self._best[:rows].fill_(_NEVER)
        self._best[:rows, 0] = 0.0
        self._best_index[:rows, 0] = tokens
        return replay

    def _replay(self) -> Callable[[], None]:
        """Return the captured step of the cache in use, captured now if it is not.

        The trial runs of a capture write no slot and no token: their position lies past the capacity.
        """
        cache = self._held()
        key = (cache.batch_size, cache.max_length)
        if key not in self._replays:
            state = self._first.clone(), self._position.clone()
            self._first.zero_()
            self._position.fill_(cache.max_length)
            self._step.fill_(self._tokens.shape[1])
            self._best.fill_(_NEVER)
            self._best_index.zero_()
            try:
                with persistent():
                    self._replays[key] = self._capture(lambda: self._launch(cache))
            except failures() as error:
                raise CaptureError(f"{key[0]} rows of {key[1]} tokens: {error}") from error
            finally:
                self._first.copy_(state[0])
                self._position.copy_(state[1])
        return self._replays[key]

    def _launch(self, cache: StaticCache) -> None:
        """Launch one step: choose the token, embed it, run the layers and the head. Kernels only."""
        from ...kernels.decode_attention import decode_attention
        from ...kernels.down_decode import down_decode
        from ...kernels.lm_head_argmax import advance, lm_head_argmax
        from ...kernels.mlp_decode import mlp_decode
        from ...kernels.out_decode import out_decode
        from ...kernels.qkv_decode import qkv_decode

        w, pdl, n = self._weights, self._pdl, cache.batch_size
        x, q, middle = self._x[:n], self._q[:n], self._middle[:n]
        partial_o, partial_l = self._partial_o[:n], self._partial_l[:n]
        first, position, best, index = self._first[:n], self._position[:n], self._best[:n], self._best_index[:n]
        advance(best, index, w.embedding, self._token[:n], x, self._tokens[:n], position, self._step[:n], pdl)
        for layer, keys, values in zip(w.layers, cache.keys, cache.values, strict=True):
            weights = layer.q.weight, layer.k.weight, layer.v.weight
            scales = None
            if layer.q.scale is not None and layer.k.scale is not None and layer.v.scale is not None:
                scales = layer.q.scale, layer.k.scale, layer.v.scale
            qkv_decode(
                x, layer.input_norm, weights, scales, *self._rotary, first, position, keys, values, q, w.eps, pdl
            )
            decode_attention(q, keys, values, first, position, partial_o, partial_l, w.scale, pdl)
            out_decode(partial_o, partial_l, layer.out.weight, layer.out.scale, x, x, pdl)
            gate, up = layer.gate, layer.up
            mlp_scales = None if gate.scale is None or up.scale is None else (gate.scale, up.scale)
            mlp_decode(x, layer.post_norm, gate.weight, up.weight, mlp_scales, middle, w.eps, pdl)
            down_decode(middle, layer.down.weight, layer.down.scale, x, x, pdl)
        lm_head_argmax(x, w.norm, w.head.weight, w.head.scale, self._logits[:n], best, index, w.eps, pdl)


class GraphHolder:
    """Keeps the decode graph of a model, made at first use. Copies and pickles of a holder are empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._graph: DecodeGraph | None = None

    def __reduce__(self) -> tuple[type[GraphHolder], tuple[()]]:
        return GraphHolder, ()

    def of(self, model: GenerativeModel) -> DecodeGraph:
        """See `decode_graph`; a graph of another model, which this one was copied from, is replaced."""
        with self._lock:
            if self._graph is None or not self._graph.serves(model):
                self._graph = None
                self._graph = DecodeGraph(model)
            return self._graph


def decode_graph(model: GenerativeModel) -> DecodeGraph:
    """Return the decode graph of `model`, made at first use and kept with it.

    Raises:
        UnsupportedModelError: see `decode_weights.gather`; and a device that cannot capture.
        CaptureError: there is no memory for its buffers.
    """
    if model.device.type != "cuda":
        raise UnsupportedModelError(f"a decode graph needs a CUDA or ROCm device, not {model.device.type!r}")
    holder = model._decode_graph
    assert isinstance(holder, GraphHolder)
    return holder.of(model)
