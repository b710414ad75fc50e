"""How much a chat template may build: the guard of memory and time is ours, jinja2's sandbox has none.

Sizes are numbers of characters and of items of lists. What an operation would build is estimated before it is done,
and never estimated too small; what it built is added up over a rendering.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import NamedTuple, TypeVar

from jinja2.exceptions import SecurityError

T = TypeVar("T")

MAX_TEXT = 1 << 24
"""The size of what one operation, or the whole template, may build."""

MAX_TOTAL = 1 << 27
"""The size of what all operations of a rendering may build together."""

MAX_STEPS = 1 << 20
"""How many turns of loops, calls and filters a rendering may take."""

CALL_STEPS = 4
"""What a call counts for: it takes longer than a turn of a loop."""

MAX_NUMBER = 1 << 20
"""The largest number that a template may pass to a method or a filter, as a width or a count."""

# What an item counts for beside its text: so much memory it takes at least, and walking over it takes time.
_ITEM = 16
_TEXTS = (str, bytes, bytearray)
_LISTS = (list, tuple, set, frozenset, range, KeysView, ValuesView, ItemsView)
_PERCENT_WIDTH = re.compile(r"%[^a-zA-Z%]*?(\d+|\*)")
_FIELD = re.compile(r"\{[^{}]*\}")
_NESTED_FIELD = re.compile(r"\{[^}]*\{")
# They look at the items of their argument and make no text of them: only how many there are counts.
_STRUCTURAL = frozenset(
    (
        *("attr", "batch", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last"),
        *("length", "list", "map", "max", "min", "random", "reject", "rejectattr", "reverse", "round", "select"),
        *("selectattr", "slice", "sort", "unique"),
    )
)


class Extent(NamedTuple):
    """The size of a value with everything in it, and how deep it is nested."""

    size: int
    depth: int


def extent(value: object) -> Extent:
    """Measure a value; beyond `MAX_TEXT` the size is only known to be larger."""
    size, deepest = 0, 0
    stack = [(value, 1)]
    while stack and size <= MAX_TEXT:
        item, depth = stack.pop()
        deepest = max(deepest, depth)
        size += _ITEM
        if isinstance(item, _TEXTS):
            size += len(item)
        elif isinstance(item, int):
            size += item.bit_length() // 3
        elif isinstance(item, _LISTS):
            if len(item) > MAX_TEXT:
                return Extent(len(item), deepest)
            stack += [(part, depth + 1) for part in item]
        elif isinstance(item, Mapping):
            stack += [(part, depth + 1) for pair in item.items() for part in pair]
    return Extent(size, deepest)


class Meter:
    """What a rendering has taken so far."""

    def __init__(self) -> None:
        self.built = 0
        self.steps = 0


_meter: ContextVar[Meter | None] = ContextVar("_meter", default=None)


@contextmanager
def metered() -> Iterator[None]:
    """Count what is built in the block from zero."""
    token = _meter.set(Meter())
    try:
        yield
    finally:
        _meter.reset(token)


def count_step(size: int = 0, steps: int = 1) -> None:
    """Count a step that builds something of `size`. Raises SecurityError if the rendering has taken too much."""
    check_size(size)
    meter = _meter.get()
    if meter is None:  # jinja2 computes constants while it compiles
        return
    meter.steps += steps
    meter.built += size
    if meter.steps > MAX_STEPS or meter.built > MAX_TOTAL:
        raise SecurityError("the chat template takes too many steps, or builds too much in all of them")


def check_size(size: int) -> None:
    """Raise SecurityError for more than one operation may build."""
    if size > MAX_TEXT:
        raise SecurityError(f"a chat template may build at most {MAX_TEXT} characters or items at once")


def check_numbers(values: Collection[object]) -> None:
    """Raise SecurityError for a number that is too large as an argument."""
    if any(isinstance(value, int) and value > MAX_NUMBER for value in values):
        raise SecurityError(f"a chat template may pass numbers up to {MAX_NUMBER}")


def shallow(value: object) -> int:
    """Return how long a value is, without a look at what its items hold."""
    return len(value) if isinstance(value, (*_TEXTS, *_LISTS, Mapping)) else 1


def operator_size(operator: str, left: object, right: object) -> int:
    """Return how large the result of `left operator right` can be; of numbers, the bits."""
    sides = (left, right)
    sized = [len(value) for value in sides if isinstance(value, (*_TEXTS, *_LISTS))]
    if operator == "+":
        return sum(sized)
    if operator == "*" and sized:
        return sized[0] * max([int(value) for value in sides if isinstance(value, int)], default=1)
    if operator == "%" and isinstance(left, _TEXTS):
        return percent_size(left, (right,))
    bits = [value.bit_length() for value in sides if isinstance(value, int)]
    if operator == "**" and len(bits) == 2 and isinstance(right, int):
        return bits[0] * min(abs(int(right)), MAX_TEXT + 1)
    return max(bits, default=0)


def percent_size(layout: str | bytes | bytearray, arguments: Collection[object]) -> int:
    """Return how long `layout % arguments` can become; too large if a width is an argument."""
    text = layout if isinstance(layout, str) else layout.decode("latin-1")
    widths = _PERCENT_WIDTH.findall(text)
    if "*" in widths:
        return MAX_TEXT + 1
    return len(text) + text.count("%") * max([0, *map(_number, widths), *(extent(value).size for value in arguments)])


def braces_size(layout: str, arguments: Collection[object]) -> int:
    """Return how long `layout.format(…)` can become; too large if a width is an argument."""
    text = layout.replace("{{", "").replace("}}", "")
    if _NESTED_FIELD.search(text):
        return MAX_TEXT + 1
    fields = _FIELD.findall(text)
    widths = [_number(digits) for field in fields for digits in re.findall(r"\d+", field.partition(":")[2])]
    return len(text) + len(fields) * max([0, *widths, *(extent(value).size for value in arguments)])


def _number(digits: str) -> int:
    return MAX_TEXT + 1 if len(digits) > 8 else int(digits)


def call_size(name: str, owner: object, arguments: tuple[object, ...]) -> int:
    """Return how large the result of the method `name` of `owner`, or of the filter `name` on it, can be."""
    values = [extent(argument).size for argument in arguments]
    if name == "join":
        text = owner if isinstance(owner, _TEXTS) else None
        items, glue = (arguments[:1], len(text)) if text is not None else ((owner,), sum(values))
        return sum(extent(item).size + shallow(item) * glue for item in items)
    if name in ("format", "format_map") and isinstance(owner, str):
        return braces_size(owner, arguments)
    size, depth = extent(owner)
    if name == "replace" and len(arguments) >= 2 and isinstance(owner, str) and isinstance(arguments[0], str):
        return size + owner.count(arguments[0]) * values[1]
    if name in ("replace", "translate", "wordwrap", "urlize"):
        return size * (1 + sum(values))
    if name in ("indent", "tojson", "pprint"):
        steps = [value for argument, value in zip(arguments, values, strict=True) if not isinstance(argument, int)]
        width = sum(int(argument) for argument in arguments if isinstance(argument, int)) + sum(steps)
        lines = str(owner).count("\n") + 1 if name == "indent" else size
        return size + lines * depth * (width or 1)
    if name == "expandtabs" and isinstance(owner, _TEXTS):
        tabs = owner.count("\t") if isinstance(owner, str) else owner.count(b"\t")
        return size + tabs * max((int(argument) for argument in arguments if isinstance(argument, int)), default=8)
    return size


def guarded_filter(name: str, function: Callable[..., T]) -> Callable[..., T]:
    """Return the filter with its arguments and its result measured."""
    # jinja2 passes its own objects first to filters that ask for them, and `wraps` keeps that mark.
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def guarded(*arguments: object, **options: object) -> T:
        given = (*arguments[first + 1 :], *options.values())
        check_numbers(given)
        value = arguments[first] if len(arguments) > first else None
        if name == "join" and isinstance(value, Iterator):
            value = list(value)
            arguments = (*arguments[:first], value, *arguments[first + 1 :])
        count_step(shallow(value) if name in _STRUCTURAL else 0)
        if name == "format" and isinstance(value, str):
            check_size(percent_size(value, given))
        elif name not in _STRUCTURAL:
            check_size(call_size(name, value, given))
        result = function(*arguments, **options)
        count_step(shallow(result))
        return result

    return guarded
