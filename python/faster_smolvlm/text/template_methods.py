"""What the operators and methods of values cost a chat template, and which attributes of values it may see.

What is not listed here is refused: a method that a later Python adds may build or compare anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from jinja2.filters import _GroupTuple
from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.utils import Cycler, Joiner
from markupsafe import Markup

from .template_limits import (
    BYTES,
    ITEM,
    MAX_TEXT,
    STEP,
    charge,
    check_bits,
    count_of,
    measure,
    refuse,
    reserve,
    searched,
    volume,
    weighed,
)

_NUMBERS = frozenset((bool, int, float, complex))
_ESCAPES = 6  # times as long as a text its HTML may be
_SPLIT = 32  # for each character of a text that is split
# Flags and width, precision; a key in front of them holds no parentheses.
_PERCENT = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?")
_NESTED_KEY = re.compile(r"%\([^()]*\(")
_REPR = re.compile(r"%[^%a-zA-Z]*[ra(]")
_FIELD = re.compile(r"\{[^{}]*\}")
_NESTED_FIELD = re.compile(r"\{[^}]*\{")


def charge_operator(operator: str, left: object, right: object) -> None:
    """Charge `left operator right`, before it is computed."""
    if operator == "+" and type(left) is str and type(right) is str:
        _build((len(left) + len(right)) * BYTES)
    elif type(left) in _NUMBERS and type(right) in _NUMBERS:
        bits = _bits(left) + _bits(right)
        if operator == "**" and isinstance(right, int):
            bits = _bits(left) * max(int(right), 1)
        check_bits(bits)
        charge(64 + bits)
    elif isinstance(left, Set):
        refuse("computes with the keys of a mapping")
    elif operator == "%" and isinstance(left, str):
        charge_percent(left, right if isinstance(right, tuple) else (right,))
    elif operator == "*":
        count = next((int(side) for side in (left, right) if isinstance(side, int)), 1)
        _build(max(volume(left), volume(right)) * max(count, 0))
    else:
        escapes = _ESCAPES if Markup in (type(left), type(right)) else 1
        _build((volume(left) + volume(right)) * escapes)


def charge_percent(layout: str, arguments: Sequence[object]) -> None:
    """Charge `layout % arguments`."""
    fields = layout.count("%")
    charge(STEP + fields * ITEM)
    widths = [digits for found in _PERCENT.findall(layout) for digits in found if digits]
    if "*" in widths or _NESTED_KEY.search(layout):
        refuse("formats with a width that is not written out")
    of_each = (arguments,) if _REPR.search(layout) else arguments
    size = sum(map(_number, widths)) + sum(map(measure, of_each))
    if "%(" in layout:  # each field may show the same value
        size *= fields
    _build((len(layout) + size) * BYTES * (_ESCAPES if isinstance(layout, Markup) else 1))


def charge_braces(layout: str, arguments: Iterable[object]) -> None:
    """Charge `layout.format(…)`."""
    charge(len(layout) * 2 * STEP)
    text = layout.replace("{{", "").replace("}}", "")
    if _NESTED_FIELD.search(text):
        refuse("formats with a width that is not written out")
    fields = _FIELD.findall(text)
    widths = [_number(digits) for field in fields for digits in re.findall(r"\d+", field.partition(":")[2])]
    widest = max(widths, default=0) + max((measure((value,)) for value in arguments), default=0)
    _build((len(layout) + len(fields) * widest) * BYTES * (_ESCAPES if isinstance(layout, Markup) else 1))


def charge_join(glue: str, items: object) -> None:
    """Charge `glue.join(items)`, where items become texts. `items` have a length."""
    if isinstance(items, str):
        count = size = len(items)
    elif isinstance(items, (list, tuple)) and all(type(item) is str for item in items):
        count, size = len(items), sum(map(len, items))
    else:
        count, size = count_of(items), measure(items)
    charge(count * ITEM)
    _build((size + count * len(glue)) * BYTES * (_ESCAPES if isinstance(glue, Markup) else 1))


def charge_replace(text: str, old: str, new: str, limit: int) -> None:
    """Charge `text.replace(old, new, limit)`."""
    charge(len(text) + len(old))
    count = text.count(old)
    _build((len(text) + (count if limit < 0 else min(count, limit)) * len(new) * _escapes(text)) * BYTES)


def charge_strip(text: str, characters: object) -> None:
    """Charge `text.strip(characters)`."""
    charge(len(text) + (len(text) * len(characters) // 4 if isinstance(characters, str) else 0))


def charge_pad(text: str, width: object) -> None:
    """Charge padding a text to a width."""
    if isinstance(width, int):
        _build(max(len(text), width) * BYTES)


def charge_method(owner: object, name: str, given: Sequence[object]) -> None:
    """Charge a call of a method of a value. Raises SecurityError for one that has no cost here."""
    rules: Mapping[str, Callable[..., None]] = TEXT_RULES if isinstance(owner, str) else LIST_RULES
    rule = rules.get(name)
    if rule is None:
        if name not in ATTRIBUTES.get(type(owner), ()):
            refuse(f"calls the method {name[:40]} of the type {type(owner).__name__}")
    else:
        rule(owner, given)


def _scan(text: str, given: Sequence[object]) -> None:
    charge(len(text) + sum(map(measure, given)))


def _scan_cases(text: str, given: Sequence[object]) -> None:
    charge(len(text) * 4)


def _scan_from_right(text: str, given: Sequence[object]) -> None:
    # Python compares at each position, unlike from the left
    charge(len(text) + sum(len(text) * len(value) // 4 for value in given if isinstance(value, str)))


def _case(text: str, given: Sequence[object]) -> None:
    charge(len(text) * 4)
    _build(len(text) * BYTES * (1 if text.isascii() else 3))  # some characters become three


def _split(text: str, given: Sequence[object]) -> None:
    charge(len(text))
    limit = next((int(value) for value in given if isinstance(value, int)), -1)
    separator = next((value for value in given if isinstance(value, str) and value), None)
    pieces = len(text) * _SPLIT // ITEM if separator is None else text.count(separator)
    charge((pieces if limit < 0 else min(pieces, limit)) * ITEM)


def _split_from_right(text: str, given: Sequence[object]) -> None:
    _scan_from_right(text, given)
    _split(text, given)


def _join(text: str, given: Sequence[object]) -> None:
    for items in given:
        charge_join(text, items)


def _replace(text: str, given: Sequence[object]) -> None:
    old, new, *limit = given
    if isinstance(old, str) and isinstance(new, str):
        charge_replace(text, old, new, limit[0] if limit and isinstance(limit[0], int) else -1)


def _expand_tabs(text: str, given: Sequence[object]) -> None:
    size = next((value for value in given if isinstance(value, int)), 8)
    _build((len(text) + text.count("\t") * max(size, 0)) * BYTES)


def _look_up(owner: object, given: Sequence[object]) -> None:
    if given:
        weighed(given[0])


def _search(owner: object, given: Sequence[object]) -> None:
    searched(owner)
    _look_up(owner, given)


def _copy(owner: object, given: Sequence[object]) -> None:
    charge(len(owner) * ITEM if isinstance(owner, (list, dict)) else 0)


def _build(size: int) -> None:
    reserve(size)
    charge(size // BYTES)


def _bits(value: object) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _number(digits: str) -> int:
    return MAX_TEXT if len(digits) > 8 else int(digits)


def _escapes(text: str) -> int:
    return _ESCAPES if isinstance(text, Markup) else 1


_SCANS = (
    *("count", "endswith", "find", "index", "isascii", "isprintable", "partition", "removeprefix", "removesuffix"),
    "startswith",
)
_CASES = ("isalnum", "isalpha", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isspace", "istitle")

TEXT_RULES: dict[str, Callable[[str, Sequence[object]], None]] = {
    **dict.fromkeys(_SCANS, _scan),
    **dict.fromkeys((*_CASES, "isupper"), _scan_cases),
    **dict.fromkeys(("rfind", "rindex", "rpartition"), _scan_from_right),
    **dict.fromkeys(("capitalize", "casefold", "lower", "swapcase", "title", "upper"), _case),
    **dict.fromkeys(("lstrip", "rstrip", "strip"), lambda text, given: charge_strip(text, given[0] if given else None)),
    **dict.fromkeys(
        ("center", "ljust", "rjust", "zfill"), lambda text, given: charge_pad(text, given[0] if given else None)
    ),
    **dict.fromkeys(("format", "format_map"), charge_braces),
    "split": _split,
    "splitlines": lambda text, given: _split(text, ()),
    "rsplit": _split_from_right,
    "join": _join,
    "replace": _replace,
    "expandtabs": _expand_tabs,
}
LIST_RULES: dict[str, Callable[[object, Sequence[object]], None]] = {
    "index": _search,
    "count": _search,
    "get": _look_up,
    "copy": _copy,
}

_FLOATS = frozenset(("as_integer_ratio", "conjugate", "hex", "imag", "is_integer", "real"))
_INTEGERS = frozenset(
    (
        "as_integer_ratio",
        "bit_count",
        "bit_length",
        "conjugate",
        "denominator",
        "imag",
        "is_integer",
        "numerator",
        "real",
    )
)
_LOOP = (
    *("changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem"),
    *("revindex", "revindex0"),
)

ATTRIBUTES: dict[type, frozenset[str]] = {
    str: frozenset(TEXT_RULES),
    Markup: frozenset(TEXT_RULES),
    int: _INTEGERS,
    bool: _INTEGERS,
    float: _FLOATS,
    complex: frozenset(("conjugate", "imag", "real")),
    list: frozenset(("copy", "count", "index")),
    tuple: frozenset(("count", "index")),
    _GroupTuple: frozenset(("count", "grouper", "index", "list")),
    range: frozenset(("count", "index", "start", "step", "stop")),
    dict: frozenset(("copy", "get", "items", "keys", "values")),
    LoopContext: frozenset(_LOOP),
    Macro: frozenset(("arguments", "caller", "catch_kwargs", "catch_varargs", "name")),
    BlockReference: frozenset(("name", "super")),
    Cycler: frozenset(("current", "next", "reset")),
    Joiner: frozenset(("sep", "used")),
}
"""The attributes of values that a template may see; those of namespaces are the template's own."""
