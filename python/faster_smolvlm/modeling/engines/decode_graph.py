"""One decode step of the text stack as a fixed list of kernel launches, captured once and replayed for every token.

The launches read positions and tokens from device memory, so one capture serves every length up to the capacity of its
cache. There is one capture for each batch size and each bucket of capacity, made at first use; all of them work in the
same buffers, and their caches lie in one arena, since only one runs at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ..kv_cache import KVCache
from .decode_weights import UnsupportedModelError, fingerprint, gather
from .model import GenerativeModel

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

BUCKETS = (512, 1024, 2048, 4096, 8192)
MAX_ROWS = 16
"""Beyond this, reading the weights once for each row costs more than a matrix product that shares them."""

_NEVER = -1.0e30


class CaptureError(RuntimeError):
    """The step could not be captured: the driver, the memory or what else runs on the device did not allow it."""


class Capture(Protocol):
    """Turns launches into something that repeats exactly them."""

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run `run`, maybe several times, and return what replays its launches with the arguments they had."""


class CudaCapture:
    """Captures CUDA graphs; they share one memory pool."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: _POOL_HANDLE | None = None

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run once beside the stream, so that every kernel is compiled, then capture."""
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                run()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                run()
            self._pool = self._pool or graph.pool()
        replay: Callable[[], None] = graph.replay
        return replay


class StaticCache(KVCache):
    """A `KVCache` whose buffers are views of an arena; it cannot grow by itself."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.growable = False
        self.keys, self.values = keys, values
        self._lengths = [0] * len(keys)


class _Arena:
    """One flat buffer for the keys and one for the values of each layer."""

    def __init__(self, layers: int, width: int, tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        self.tokens = tokens
        self._width = width
        self._flat = [torch.zeros(tokens * width, dtype=dtype, device=device) for _ in range(2 * layers)]

    def cache(self, rows: int, kv_heads: int, capacity: int) -> StaticCache:
        dim = self._width // kv_heads
        views = [flat[: rows * capacity * self._width].view(rows, kv_heads, capacity, dim) for flat in self._flat]
        return StaticCache(views[: len(views) // 2], views[len(views) // 2 :])


class DecodeGraph:
    """The decode step of one model. One generation at a time holds it: `acquire`, then `begin`, `step`, `release`."""

    def __init__(self, model: GenerativeModel, *, int8: bool = False, capture: Capture | None = None) -> None:
        self._model = model
        self._int8 = int8
        self._lock = threading.Lock()
        self._capture: Capture = capture or CudaCapture(model.device)
        self._load()

    def _load(self) -> None:
        model = self._model
        self._fingerprint = fingerprint(model, self._int8)
        self._weights = w = gather(model, int8=self._int8)
        self._replays: dict[tuple[int, int], Callable[[], None]] = {}
        self._arena: _Arena | None = None
        self._rotary = (torch.empty(0), torch.empty(0))
        self.cache: StaticCache | None = None
        device, dtype = model.device, model.dtype
        from ...kernels.launch import settings, supports_pdl
        from ...kernels.lm_head_argmax import head_blocks

        self._pdl = supports_pdl(device)

        def buffer(*shape: int, kind: torch.dtype = dtype) -> Tensor:
            return torch.zeros(MAX_ROWS, *shape, dtype=kind, device=device)

        blocks = head_blocks(w.head.weight)
        splits = settings("decode_attention", device).tile["SPLITS"]
        self._x, self._q = buffer(w.hidden), buffer(w.heads, w.head_dim)
        self._partial_o = buffer(w.heads, splits, w.head_dim, kind=torch.float32)
        self._partial_l = buffer(w.heads, splits, kind=torch.float32)
        self._middle, self._logits = buffer(w.intermediate), buffer(w.vocabulary)
        self._best, self._best_index = buffer(blocks, kind=torch.float32), buffer(blocks, kind=torch.int32)
        self._token, self._tokens = buffer(kind=torch.int64), buffer(BUCKETS[0], kind=torch.int64)
        self._first, self._position, self._step = (buffer(kind=torch.int32) for _ in range(3))

    def acquire(self) -> bool:
        """Take the buffers for one generation; False if another one has them."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if fingerprint(self._model, self._int8) != self._fingerprint:
                self._load()
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
        """Give the buffers back; the captures stay."""
        self.cache = None
        self._lock.release()

    def reserve(self, rows: int, tokens: int) -> StaticCache:
        """Make a cache for `rows` sequences of `tokens` tokens, in the arena; what an earlier one held is kept.

        Raises:
            ValueError: more rows than `MAX_ROWS`, or more tokens than the largest bucket.
        """
        if rows > MAX_ROWS:
            raise ValueError(f"the decode graph takes at most {MAX_ROWS} rows, got {rows}")
        if tokens > BUCKETS[-1]:
            raise ValueError(f"the decode graph holds at most {BUCKETS[-1]} tokens a row, got {tokens}")
        capacity = next(bucket for bucket in BUCKETS if bucket >= tokens)
        old = self.cache
        length = old.get_seq_length() if old is not None else 0
        kept = [t[:rows, :, :length].clone() for t in (*old.keys, *old.values)] if old is not None and length else []
        w = self._weights
        if self._arena is None or self._arena.tokens < rows * capacity:
            self._replays.clear()
            self._arena = None
            self._arena = _Arena(
                len(w.layers), w.kv_heads * w.head_dim, rows * capacity, self._model.dtype, self._model.device
            )
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
        positions = torch.arange(capacity, device=self._model.device)[None]
        cos, sin = self._model.model.text_model.rotary_emb(positions, self._model.dtype)
        self._rotary = cos[0, 0].contiguous(), sin[0, 0].contiguous()

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
        """Keep these rows, in this order; they may repeat."""
        cache = self._held()
        index = torch.tensor(list(rows), dtype=torch.int64, device=self._model.device)
        length = cache.get_seq_length()
        kept = [t[:, :, :length].index_select(0, index) for t in (*cache.keys, *cache.values)]
        first, position = self._first[index], self._position[index]
        capacity = cache.max_length
        self.cache = None
        cache = self.reserve(len(rows), capacity)
        cache._lengths = [length] * len(cache.keys)
        for buffer, stored in zip((*cache.keys, *cache.values), kept, strict=True):
            buffer[:, :, :length] = stored
        self._first[: len(rows)] = first
        self._position[: len(rows)] = position
        self._replay()

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
                self._replays[key] = self._capture(lambda: self._launch(cache))
            except RuntimeError as error:
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


def decode_graph(model: GenerativeModel) -> DecodeGraph:
    """Return the decode graph of `model`, made at first use and kept with it.

    Raises:
        UnsupportedModelError: see `decode_weights.gather`; and a device that cannot capture.
    """
    graph: DecodeGraph | None = model.__dict__.get("_decode_graph")
    if graph is None:
        if model.device.type != "cuda":
            raise UnsupportedModelError(f"a decode graph needs a CUDA or ROCm device, not {model.device.type!r}")
        graph = model.__dict__["_decode_graph"] = DecodeGraph(model)
    return graph
