"""What is kept between calls: image tokens by the content of their frame, and the keys and values of past prompts."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..fork_lock import ForkLock
from .serial import ENGINE_ORDER, SerialModel

Salt = str | bytes | None
"""What calls have to have in common to share what is kept: for example a key per user. Those without share too."""

Unit = int | tuple[bytes, int]
"""A position of a prompt as far as it changes a result: a token id, or a frame's hash and the index in the frame."""


def salt_key(salt: Salt) -> bytes:
    """Return what stands for a salt in the keys; a text is its UTF-8 bytes. Raises TypeError for another type."""
    if salt is None:
        return b""
    if not isinstance(salt, (str, bytes)):
        raise TypeError(f"cache_salt has to be a str, bytes or None, got {type(salt).__name__}")
    return hashlib.blake2b(salt.encode("utf-8", "surrogatepass") if isinstance(salt, str) else salt).digest()


class FeatureCache:
    """Image tokens by the hash of their frame, the least recently used forgotten beyond `budget` bytes."""

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise ValueError(f"feature_cache_bytes must not be negative, got {budget}.")
        self.budget = budget
        self._kept: OrderedDict[bytes, npt.NDArray[np.float32]] = OrderedDict()
        self._bytes = 0
        self._lock = ForkLock(ENGINE_ORDER - 1)

    def get(self, digest: bytes) -> npt.NDArray[np.float32] | None:
        """Return the image tokens of a frame, or None."""
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
            return self._kept.get(digest)

    def put(self, digest: bytes, features: npt.NDArray[np.float32]) -> None:
        """Keep the image tokens of a frame, unless they alone are larger than the budget."""
        with self._lock:
            if digest in self._kept or features.nbytes > self.budget:
                return
            self._kept[digest] = features
            self._bytes += features.nbytes
            while self._bytes > self.budget:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


@dataclass
class _Kept:
    units: list[Unit]
    sequence: int
    salt: bytes


class PrefixCache:
    """Finished sequences of the engine, whose beginnings later prompts may share: at most `budget` bytes in all.

    Beyond it the least recently used is forgotten. A sequence counts in full, also what it shares with others. Prompts
    share only with those of the same salt, see `salt_key`.
    """

    def __init__(self, rust: SerialModel, budget: int) -> None:
        if budget < 0:
            raise ValueError(f"prefix_cache_bytes must not be negative, got {budget}.")
        self._rust = rust
        self._limit = budget // rust.position_bytes  # positions
        self._kept: list[_Kept] = []  # the least recently used first
        self._lock = ForkLock(ENGINE_ORDER - 1)

    def start(self, units: Sequence[Unit], salt: bytes = b"") -> tuple[int, int]:
        """Open a sequence on the longest known beginning of `units`: its handle, and how many positions it has.

        The last unit is always left over: its logits have to be computed.
        """
        with self._lock:
            best, length = None, 0
            for kept in self._kept:
                if kept.salt != salt:
                    continue
                common = _common(kept.units, units[:-1])
                if common > length:
                    best, length = kept, common
            if best is None:
                return self._rust.open(), 0
            self._kept.remove(best)
            self._kept.append(best)
            return self._rust.fork(best.sequence, length), length

    def keep(self, units: list[Unit], sequence: int, salt: bytes = b"") -> None:
        """Take over a finished sequence that holds exactly `units`."""
        with self._lock:
            # What this sequence repeats from the start is of no more use.
            alike = [kept for kept in self._kept if kept.salt == salt]
            for kept in [kept for kept in alike if _common(kept.units, units) == len(kept.units)]:
                self._drop(kept)
            self._kept.append(_Kept(units, sequence, salt))
            while self._kept and sum(len(kept.units) for kept in self._kept) > self._limit:
                self._drop(self._kept[0])

    def forget_one(self) -> bool:
        """Forget the least recently used sequence; False if there is none."""
        with self._lock:
            if self._kept:
                self._drop(self._kept[0])
                return True
            return False

    def clear(self) -> None:
        """Forget everything."""
        while self.forget_one():
            pass

    def _drop(self, kept: _Kept) -> None:
        self._kept.remove(kept)
        self._rust.close(kept.sequence)


def _common(a: Sequence[Unit], b: Sequence[Unit]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
