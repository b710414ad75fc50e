"""The Rust model with one call at a time, and none at the moment of a fork."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import numpy.typing as npt

from .._rust import NativeModel
from ..fork_lock import ForkLock

if TYPE_CHECKING:
    from .._rust import Step

ENGINE_ORDER = 2
"""Order of this lock; those of the caches, which call the model while they hold their own, come before."""


class SerialModel:
    """The methods of a `NativeModel`, see there, behind a lock.

    The lock of the Rust side would be held for ever in a child that is forked during a call of another thread.
    """

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._lock = ForkLock(ENGINE_ORDER)
        self.isa = model.isa
        self.num_threads = model.num_threads
        self.text_bytes = model.text_bytes
        self.position_bytes = model.position_bytes
        self.packed = model.packed
        _, self.pages, self.page_size = model.cache_pages()

    def encode(self, pixels: npt.NDArray[np.float32], patch_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return the image tokens of a frame."""
        with self._lock:
            return self._model.encode(pixels, patch_mask)

    @overload
    def step(self, step: Step, argmax: Literal[False]) -> npt.NDArray[np.float32]: ...
    @overload
    def step(self, step: Step, argmax: Literal[True]) -> npt.NDArray[np.int64]: ...
    def step(self, step: Step, argmax: bool) -> npt.NDArray[np.float32] | npt.NDArray[np.int64]:
        """Append tokens; return logits or the likeliest next tokens."""
        with self._lock:
            return self._model.step(step, True) if argmax else self._model.step(step, False)

    def open(self) -> int:
        """Start an empty sequence and return its handle."""
        with self._lock:
            return self._model.open()

    def close(self, sequence: int) -> None:
        """End a sequence."""
        with self._lock:
            self._model.close(sequence)

    def fork(self, sequence: int, length: int) -> int:
        """Start a sequence on the first `length` positions of another."""
        with self._lock:
            return self._model.fork(sequence, length)

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the positions of a sequence from `length` on."""
        with self._lock:
            self._model.truncate(sequence, length)

    def length(self, sequence: int) -> int:
        """Return the number of positions of a sequence."""
        with self._lock:
            return self._model.length(sequence)

    def grow_cache(self, positions: int) -> None:
        """Enlarge the key/value cache to at least `positions` positions in all."""
        with self._lock:
            self._model.grow_cache(positions)
            _, self.pages, _ = self._model.cache_pages()

    def cache_pages(self) -> tuple[int, int, int]:
        """Return the free and all pages of the key/value cache, and the positions of a page."""
        with self._lock:
            return self._model.cache_pages()
