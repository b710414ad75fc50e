"""Good files made bad: bits flipped, cut, pieces doubled or left out, lengths changed; all by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


def mutations(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` damaged copies of `data`, each with the name of what was done to it.

    The kinds follow each other; the same seed gives the same copies.
    """
    rng = random.Random(seed)
    for index in range(count):
        name, change = _KINDS[index % len(_KINDS)]
        changed = bytearray(data)
        change(changed, rng)
        yield f"{name} {index}", bytes(changed)


def _flip_one(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_in_head(data: bytearray, rng: random.Random) -> None:
    for _ in range(3):
        data[rng.randrange(min(len(data), 256))] ^= 1 << rng.randrange(8)


def _flip_many(data: bytearray, rng: random.Random) -> None:
    for _ in range(max(2, len(data) // 500)):
        _flip_one(data, rng)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def _leave_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 64)]


def _double(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 512)]
    data[start:start] = piece * rng.randrange(1, 4)


def _change_length(data: bytearray, rng: random.Random) -> None:
    """Put an extreme number where one of 16 or 32 bits may stand, near the front."""
    width = rng.choice((2, 4))
    at = rng.randrange(max(1, min(len(data), 2048) - width))
    number = rng.choice((0, 1, 0x7F, 0x80, 0xFF, -1, -2, -128)) % (1 << 8 * width)
    data[at : at + width] = number.to_bytes(width, rng.choice(("big", "little")))


def _zero(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    size = min(rng.randrange(1, 256), len(data) - start)
    data[start : start + size] = bytes(size)


_KINDS: list[tuple[str, Callable[[bytearray, random.Random], None]]] = [
    ("one bit", _flip_one),
    ("bits of the header", _flip_in_head),
    ("many bits", _flip_many),
    ("cut", _cut),
    ("left out", _leave_out),
    ("doubled", _double),
    ("length", _change_length),
    ("zeros", _zero),
]
