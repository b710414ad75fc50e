"""What a chat template may take: one budget for a rendering, and the cost of walking over values and building them.

A unit of cost is a byte of memory or about five nanoseconds. What an operation takes is worked out before it is done,
and never too small; what it built is charged by its real size afterwards. A rendering may hold all that it ever built.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from sys import getsizeof
from typing import NoReturn, TypeVar

from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext

T = TypeVar("T")

MAX_COST = 3 << 26
"""What a rendering may take in all."""

MAX_ONCE = 1 << 26
"""How many bytes one operation may build, and what it may cost to walk over one value."""

MAX_TEXT = 1 << 24
"""How many characters a text may have that a template builds: `MAX_ONCE` bytes if they are wide."""

MAX_BITS = 1 << 12
"""How many bits an integer may have."""

MAX_DEPTH = 200
"""How deep lists and mappings may hold each other."""

MAX_ODD_KEYS = 32
"""How many keys other than texts a mapping may have: numbers can be chosen so that a lookup compares them all."""

STEP = 256
"""What a turn of a loop, a filter or a test costs."""

CALL = 1024
"""What a call costs, and an item that comes out of a chain of filters."""

ITEM = 128
"""What an item of a list or mapping costs beside its text."""

BYTES = 4  # of a wide character
_SCALARS = frozenset((bool, float, type(None), complex))
_LISTS = (list, tuple, KeysView, ValuesView, ItemsView)


class _Budget:
    """What a rendering has left."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_COST


_budget: ContextVar[_Budget] = ContextVar("_budget")


@contextmanager
def metered() -> Iterator[None]:
    """Give the block a budget of its own; outside such a block nothing can be charged."""
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def charge(cost: int) -> bool:
    """Take from the budget, and return True. Raises SecurityError if that is used up."""
    budget = _budget.get()
    budget.left -= cost
    if budget.left < 0:
        refuse("takes more time or memory than a chat template may")
    return True


def refuse(reason: str) -> NoReturn:
    """Raise SecurityError: the template does something that is not allowed."""
    raise SecurityError(f"the chat template {reason}")


def reserve(size: int) -> None:
    """Raise SecurityError for more bytes than one operation may build."""
    if size > MAX_ONCE:
        refuse(f"builds a value of more than {MAX_ONCE} bytes, or walks over one")


def built(value: T) -> T:
    """Charge the memory of a new value, without what it holds, and return it."""
    charge(getsizeof(value))
    return value


def weighed(value: T) -> T:
    """Charge what it may cost to compare or hash a value, and return it."""
    charge(measure(value))
    return value


def searched(value: T) -> T:
    """Charge what it may cost to look for something in a value, and return it."""
    if isinstance(value, (LoopContext, Iterator)):
        if not isinstance(value, Lazy):
            refuse("searches the state of a loop")
        value.weighs = True
    elif isinstance(value, range):
        charge(len(value) * 8)
    elif not isinstance(value, (Mapping, KeysView)):
        charge(measure(value))
    return value


def measure(value: object) -> int:
    """Return what it costs to walk over a value: at least as much as the text that Python or JSON makes of it is long.

    Lists and mappings count as often as they are reached. Raises SecurityError above `MAX_ONCE` or `MAX_DEPTH`.
    """
    if isinstance(value, str):
        return len(value)
    size = 0
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            size += ITEM
            if isinstance(item, str):  # inside of something else its control characters are escaped
                size += len(item) * _longest_escape(item)
            elif type(item) in _SCALARS:
                pass
            elif isinstance(item, int):
                size += item.bit_length()
            elif isinstance(item, Mapping):
                size += 2 * ITEM * len(item)
                reserve(size)
                below += item
                below += item.values()
            elif isinstance(item, _LISTS):
                size += ITEM * len(item)
                reserve(size)
                below += item
        reserve(size)
        if not below:
            return size
        level = below
    refuse(f"nests values deeper than {MAX_DEPTH} levels")


def _longest_escape(text: str) -> int:
    """Return how many characters one of a text may become in `repr` or JSON."""
    if text.isprintable() and '"' not in text and "\\" not in text and "'" not in text:
        return 1
    if text.replace("\n", "").replace("\t", "").isprintable():
        return 2
    return 6 if text.isascii() else 10


def volume(value: object) -> int:
    """Return how many bytes a text or list can take, without a look at what its items hold; 0 for another value."""
    if isinstance(value, str):
        return len(value) * BYTES
    return len(value) * 8 if isinstance(value, (*_LISTS, range)) else 0


def count_of(value: object) -> int:
    """Return how many items a value has; 0 for one that is no text, list or mapping."""
    return len(value) if isinstance(value, (str, *_LISTS, range, Mapping)) else 0


def check_bits(bits: int) -> None:
    """Raise SecurityError for more bits than an integer may have."""
    if bits > MAX_BITS:
        refuse(f"computes with integers of more than {MAX_BITS} bits")


class Lazy(Iterator[T]):
    """What a filter gives item by item; each costs when it is taken."""

    __slots__ = ("_items", "weighs")

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self.weighs = False
        """Whether items are going to be compared."""

    def __next__(self) -> T:
        charge(CALL)
        item = next(self._items)
        return weighed(item) if self.weighs else item

    def __repr__(self) -> str:
        return "<generator>"
