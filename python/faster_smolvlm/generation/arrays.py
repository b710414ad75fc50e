"""The few array functions that the loop needs, over NumPy and torch alike, so that each rule is written once.

An `Array` is a `numpy.ndarray` or a `torch.Tensor`. torch is only touched after a tensor came in: an engine that
works on NumPy arrays runs in a process without it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any


def is_torch(x: Array) -> bool:
    """Whether `x` is a torch tensor rather than a NumPy array."""
    return not isinstance(x, np.ndarray)


def namespace(x: Array) -> ModuleType:
    """Return the module, `numpy` or `torch`, whose functions take `x`."""
    return sys.modules["torch"] if is_torch(x) else np


def on_host(x: Array) -> Array:
    """`x` in the memory of the CPU."""
    return x.cpu() if is_torch(x) else x


def beside(x: Array, other: Array) -> Array:
    """Return `x` on the device of `other`."""
    return x if not is_torch(x) or x.device == other.device else x.to(other.device, non_blocking=True)


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    if is_torch(x):
        return x.softmax(-1)
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """Logarithm of the softmax over the last axis."""
    if is_torch(x):
        return x.log_softmax(-1)
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def row_max(x: Array) -> Array:
    """Largest value of each row, [rows, 1]."""
    return x.amax(-1, keepdim=True) if is_torch(x) else x.max(-1, keepdims=True)


def kth_largest(x: Array, k: int) -> Array:
    """The k-th largest value of each row, [rows, 1]."""
    if is_torch(x):
        return x.topk(k, dim=-1).values[..., -1:]
    return np.partition(x, -k, axis=-1)[..., -k, None]


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest values of each row in falling order, and their indices."""
    if is_torch(x):
        values, indices = x.topk(k, dim=-1)
        return values, indices
    indices = np.stack([_falling(row, k) for row in x])
    return np.take_along_axis(x, indices, -1), indices


def _falling(row: Array, k: int) -> Array:
    """Indices of the k largest values of a row in falling order, the lowest of equals first, without sorting all."""
    candidates = np.flatnonzero(row > -np.inf)  # which NaN is not either
    if len(candidates) > 4 * k:
        values = row[candidates]
        candidates = candidates[values >= np.partition(values, -k)[-k]]
    elif len(candidates) < k:
        candidates = np.arange(len(row))
    return candidates[np.argsort(-row[candidates], kind="stable")[:k]]


def sort(x: Array) -> tuple[Array, Array]:
    """Values of each row in rising order, and the indices that they had."""
    if is_torch(x):
        values, order = x.sort(-1)
        return values, order
    order = np.argsort(x, axis=-1, kind="stable")
    return np.take_along_axis(x, order, -1), order


def flip(x: Array) -> Array:
    """`x` with the order of each row reversed."""
    return x.flip(-1) if is_torch(x) else x[..., ::-1]


def take(x: Array, indices: Array) -> Array:
    """Values of each row at `indices` [rows, n]."""
    return x.gather(-1, indices) if is_torch(x) else np.take_along_axis(x, indices, -1)


def put(x: Array, indices: Array, values: Array) -> Array:
    """A copy of `x` with `values` [rows, n] at `indices` [rows, n] of each row."""
    if is_torch(x):
        return x.scatter(-1, indices, values)
    out = x.copy()
    np.put_along_axis(out, indices, values, -1)
    return out


def concatenate(parts: Sequence[Array], axis: int) -> Array:
    """Join arrays of one library along `axis`."""
    return namespace(parts[0]).concatenate(list(parts), axis)


def copy(x: Array) -> Array:
    """A copy of `x`."""
    return x.clone() if is_torch(x) else x.copy()


def float32(x: Array) -> Array:
    """`x` in float32; `x` itself if it is that already."""
    return x.float() if is_torch(x) else x.astype(np.float32, copy=False)


def full_ids(like: Array, shape: tuple[int, ...], value: int) -> Array:
    """An int64 array filled with `value`, of the library and on the device of `like`."""
    if is_torch(like):
        return like.new_full(shape, value, dtype=sys.modules["torch"].int64)
    return np.full(shape, value, dtype=np.int64)


def ids_like(like: Array, values: Sequence[int]) -> Array:
    """`values` as int64, of the library and on the device of `like`."""
    if is_torch(like):
        torch = sys.modules["torch"]
        return torch.as_tensor(values, dtype=torch.int64, device=like.device)
    return np.asarray(values, dtype=np.int64)


def exponential(like: Array, rows: int, generator: object) -> Array:
    """float32 noise [rows, columns of `like`] drawn from the exponential distribution of rate 1.

    `generator` is a `torch.Generator` or None (torch's global one) beside a tensor, a `numpy.random.Generator` beside
    an array.
    """
    shape = (rows, like.shape[-1])
    if is_torch(like):
        return like.new_empty(shape).exponential_(1.0, generator=generator)
    assert isinstance(generator, np.random.Generator)
    return generator.standard_exponential(shape, dtype=np.float32)
