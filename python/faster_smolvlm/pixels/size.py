"""`SizeDict`: the sizes of an image processor, as in Transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields

from ..quoting import shown

VALID_KEYS = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
    {"min_pixels", "max_pixels"},
)


@dataclass(eq=False)
class SizeDict:
    """A hashable size that reads like a dict and equals one; absent entries are None."""

    height: int | None = None
    width: int | None = None
    longest_edge: int | None = None
    shortest_edge: int | None = None
    max_height: int | None = None
    max_width: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __getitem__(self, key: str) -> int | None:
        if key in _NAMES:
            value: int | None = getattr(self, key)
            return value
        raise KeyError(f"Key {key} not found in SizeDict.")

    def __setitem__(self, key: str, value: int | None) -> None:
        if key not in _NAMES:
            raise KeyError(f"Key {key} is not a valid field of SizeDict.")
        setattr(self, key, value)

    def get(self, key: str, default: int | None = None) -> int | None:
        """Return the entry, or `default` if it is absent."""
        value = self[key] if key in _NAMES else None
        return default if value is None else value

    def keys(self) -> list[str]:
        """Names of the entries that are there."""
        return [name for name, _ in self]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        # Pairs rather than keys, as in Transformers, where dict(size) works by it.
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None:
                yield name, value

    def __contains__(self, key: object) -> bool:
        return key in _NAMES and getattr(self, str(key)) is not None

    def __hash__(self) -> int:
        return hash(astuple(self))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, dict):
            return self.to_dict() == other
        if isinstance(other, SizeDict):
            return astuple(self) == astuple(other)
        return NotImplemented

    def __or__(self, other: object) -> SizeDict:
        if isinstance(other, (dict, SizeDict)):
            return SizeDict(**{**self.to_dict(), **_plain(other)})
        return NotImplemented

    def __ror__(self, other: object) -> dict[str, int]:
        if isinstance(other, dict):
            return {**other, **self.to_dict()}
        return NotImplemented

    def to_dict(self) -> dict[str, int]:
        """A plain dict of the entries that are there."""
        return {name: getattr(self, name) for name in self.keys()}


_NAMES = tuple(field.name for field in fields(SizeDict))

Size = int | Sequence[int] | dict[str, int] | SizeDict
"""A size in any of the forms that `size_dict` takes."""


def _plain(size: SizeDict | dict[str, int]) -> dict[str, int]:
    return size.to_dict() if isinstance(size, SizeDict) else dict(size)


def size_dict(size: object, *, default_to_square: bool | None = True, name: str = "size") -> SizeDict:
    """Turn an int, a (height, width) pair or a dict into a `SizeDict`; ValueError for anything else."""
    if isinstance(size, SizeDict):
        return size
    if isinstance(size, bool):
        raise ValueError(f"Could not convert {name} input to size dict: {shown(size)}")
    if isinstance(size, int):
        return SizeDict(height=size, width=size) if default_to_square else SizeDict(shortest_edge=size)
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return SizeDict(height=size[0], width=size[1])
    if not isinstance(size, dict):
        raise ValueError(f"Could not convert {name} input to size dict: {shown(size)}")
    if set(size) not in VALID_KEYS:
        raise ValueError(f"{name} must have one of the following set of keys: {VALID_KEYS}, got {shown(list(size))}")
    return SizeDict(**size)
