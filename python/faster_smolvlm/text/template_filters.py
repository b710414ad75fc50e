"""What the filters and tests of jinja2 cost a chat template.

Each is listed with a rule that charges it before it works, or as one that costs nothing. What is not listed is taken
out of the environment: a filter that a later jinja2 adds is refused until it has a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import TypeVar

from jinja2.runtime import LoopContext

from .template_limits import (
    BYTES,
    ITEM,
    STEP,
    Lazy,
    built,
    charge,
    check_bits,
    count_of,
    measure,
    refuse,
    reserve,
    searched,
    weighed,
)
from .template_methods import charge_join, charge_operator, charge_pad, charge_percent, charge_replace, charge_strip

T = TypeVar("T")
Arguments = Mapping[str, object]
"""The arguments of a filter by name; those given by position are named as jinja2 does."""

_MAX_DIGITS = 4300  # Python's own limit
_MAX_PRECISION = 400  # more than any float has
_MAX_ATTRIBUTE = 256


def _written_as_json(value: object, given: Arguments) -> None:
    size = measure((value,))
    indent, separators = given.get("indent"), given.get("separators")
    if isinstance(separators, (list, tuple)):
        size += size // ITEM * sum(map(count_of, separators)) * BYTES
    if indent is not None:  # written by Python instead of C, a line for each item
        width = indent if isinstance(indent, int) else len(indent) if isinstance(indent, str) else 0
        size = size * 6 + size // ITEM * max(width, 0) * _depth(value)
    reserve(size)
    charge(size)


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            part
            for item in level
            for part in (
                item.values() if isinstance(item, Mapping) else item if isinstance(item, (list, tuple)) else ()
            )
        ]
    return depth


def _text(units: int, escapes: int = 1) -> Callable[[object, Arguments], None]:
    """Return the rule of a filter that makes a text of the value, and reads each of its characters."""

    def rule(value: object, given: Arguments) -> None:
        size = measure(value)
        reserve(size * BYTES * escapes if isinstance(value, str) else size * escapes)
        charge(size * units)

    return rule


def _square(value: object, given: Arguments) -> None:
    """The rule of filters that no chat template needs: whatever they do, it is not more than the square."""
    size = measure((value,))
    reserve(size * (BYTES + sum(map(measure, given.values()))))
    charge(size * STEP + size * size // 64)


def _items(value: object, given: Arguments) -> None:
    charge(count_of(value) * STEP * (1 + _lookups(given)))


def _mapped(value: object, given: Arguments) -> None:
    charge(count_of(value) * STEP * (5 + _lookups(given)))


def _lookups(given: Arguments) -> int:
    """Return what looking up the attribute of an item costs, in steps: one that is not there makes an object."""
    attribute = given.get("attribute")
    if attribute is None:
        return 0
    return 4 * (1 + attribute.count(".") + attribute.count(",") if isinstance(attribute, str) else 1)


def _compared(value: object, given: Arguments) -> None:
    _items(value, given)
    charge(measure(value))


def _sorted(value: object, given: Arguments) -> None:
    _items(value, given)
    charge(measure(value) * max(count_of(value).bit_length(), 1))


def _unique(value: object, given: Arguments) -> None:
    _compared(value, given)
    attribute = given.get("attribute")
    odd = 0
    for item in value if isinstance(value, (list, tuple, range)) else ():
        odd += not isinstance(item.get(attribute) if isinstance(item, dict) else item, str)
    charge(odd * odd * 4)  # numbers can be chosen so that all of them are compared


def _sum(value: object, given: Arguments) -> None:
    _items(value, given)
    if not isinstance(given.get("start", 0), (int, float)) and isinstance(value, (list, tuple)):
        charge(sum(map(count_of, value)) * len(value) // 2)  # each list is added to a copy of those before


def _joined(value: object, given: Arguments) -> None:
    _items(value, given)
    charge_join(str(given.get("d", "")), value)


def _batched(value: object, given: Arguments) -> None:
    width = given.get("linecount")
    reserve(width * 8 if isinstance(width, int) else 0)
    charge(count_of(value) * ITEM + (width * 8 if isinstance(width, int) else 0))


def _listed(value: object, given: Arguments) -> None:
    charge(count_of(value) * ITEM)


def _indented(value: object, given: Arguments) -> None:
    width = given.get("width", 4)
    text = value if isinstance(value, str) else ""
    charge(len(text) * 8)
    reserve((len(text) + (len(text.splitlines()) + 1) * (width if isinstance(width, int) else measure(width))) * BYTES)


def _formatted(value: object, given: Arguments) -> None:
    text = str(weighed(value))
    charge_percent(text, tuple(given.values()))


def _replaced(value: object, given: Arguments) -> None:
    text, old, new = (str(weighed(part)) for part in (value, given.get("old", ""), given.get("new", "")))
    count = given.get("count")
    charge_replace(text, old, new, count if isinstance(count, int) else -1)


def _trimmed(value: object, given: Arguments) -> None:
    charge_strip(value if isinstance(value, str) else str(weighed(value)), given.get("chars"))


def _centered(value: object, given: Arguments) -> None:
    charge_pad(value if isinstance(value, str) else str(weighed(value)), given.get("width", 80))


def _converted(value: object, given: Arguments) -> None:
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        refuse(f"makes a number of a text of more than {_MAX_DIGITS} characters")


def _rounded(value: object, given: Arguments) -> None:
    precision = given.get("precision", 0)
    if isinstance(precision, int) and abs(precision) > _MAX_PRECISION:
        refuse(f"rounds to more than {_MAX_PRECISION} digits")


def _looked_up(value: object, given: Arguments) -> None:
    charge(16 * STEP)  # Python walks over the classes of the value


def _free(value: object, given: Arguments) -> None:
    """The rule of filters that look at one item at most, and at none of their arguments."""


Rule = Callable[[object, Arguments], None]

# The rule of each filter, and the names of its arguments in their order.
FILTERS: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "abs": (_free, ()),
    "attr": (_looked_up, ("attribute",)),
    "batch": (_batched, ("linecount", "fill_with")),
    "capitalize": (_text(4), ()),
    "center": (_centered, ("width",)),
    "count": (_free, ()),
    "d": (_free, ("default_value", "boolean")),
    "default": (_free, ("default_value", "boolean")),
    "dictsort": (_sorted, ("case_sensitive", "by", "reverse")),
    "e": (_text(4, escapes=6), ()),
    "escape": (_text(4, escapes=6), ()),
    "filesizeformat": (_converted, ("binary",)),
    "first": (_free, ()),
    "float": (_converted, ("default",)),
    "forceescape": (_text(4, escapes=6), ()),
    "format": (_formatted, ()),
    "groupby": (_sorted, ("attribute", "default", "case_sensitive")),
    "indent": (_indented, ("width", "first", "blank")),
    "int": (_converted, ("default", "base")),
    "items": (_listed, ()),
    "join": (_joined, ("d", "attribute")),
    "last": (_free, ()),
    "length": (_free, ()),
    "list": (_listed, ()),
    "lower": (_text(4), ()),
    "map": (_mapped, ("filter",)),
    "max": (_compared, ("case_sensitive", "attribute")),
    "min": (_compared, ("case_sensitive", "attribute")),
    "pprint": (_square, ()),
    "random": (_free, ()),
    "reject": (_mapped, ("test",)),
    "rejectattr": (_mapped, ("attribute", "test")),
    "replace": (_replaced, ("old", "new", "count")),
    "reverse": (_listed, ()),
    "round": (_rounded, ("precision", "method")),
    "safe": (_text(1), ()),
    "select": (_mapped, ("test",)),
    "selectattr": (_mapped, ("attribute", "test")),
    "slice": (_listed, ("slices", "fill_with")),
    "sort": (_sorted, ("reverse", "case_sensitive", "attribute")),
    "string": (_text(1), ()),
    "striptags": (_square, ()),
    "sum": (_sum, ("attribute", "start")),
    "title": (_text(64), ()),
    "tojson": (_written_as_json, ("ensure_ascii", "indent", "separators", "sort_keys")),
    "trim": (_trimmed, ("chars",)),
    "truncate": (_text(2), ("length", "killwords", "end", "leeway")),
    "unique": (_unique, ("case_sensitive", "attribute")),
    "upper": (_text(4), ()),
    "urlencode": (_text(64, escapes=12), ()),
    "urlize": (_square, ()),
    "wordcount": (_text(64), ()),
    "wordwrap": (_square, ("width", "break_long_words", "wrapstring", "break_on_hyphens")),
    "xmlattr": (_square, ("autospace",)),
}

# They need a value that has a length; what a filter gives item by item is taken into a list for them.
_WHOLE = frozenset(("groupby", "join", "max", "min", "sort", "slice", "sum", "unique"))
# They may see the state of a loop, and do not go on with the loop.
_OF_LOOPS = frozenset(("attr", "d", "default", "string"))


def guarded_filters(filters: Mapping[str, Callable[..., object]]) -> dict[str, Callable[..., object]]:
    """Return the filters that have a rule, each with its rule."""
    return {name: _guarded(name, *FILTERS[name], function) for name, function in filters.items() if name in FILTERS}


def _guarded(name: str, rule: Rule, names: tuple[str, ...], function: Callable[..., T]) -> Callable[..., T | Lazy[T]]:
    # jinja2 passes its own objects first to filters that ask for them, and `wraps` keeps that mark.
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def guarded(*arguments: object, **options: object) -> T | Lazy[T]:
        charge(STEP)
        if len(arguments) <= first:
            return function(*arguments, **options)
        value = arguments[first]
        if isinstance(value, LoopContext) and name not in _OF_LOOPS:
            refuse(f"applies the filter {name} to the state of a loop")
        if isinstance(value, Lazy) and name in _WHOLE:
            value = list(value)
            arguments = (*arguments[:first], value, *arguments[first + 1 :])
        given: dict[str, object] = options
        if len(arguments) > first + 1:
            given = {**_named(names, arguments[first + 1 :]), **options}
        if rule is not _free:
            for key, argument in given.items():
                _check_argument(key, argument)
        rule(value, given)
        result = function(*arguments, **options)
        if isinstance(result, int):
            check_bits(result.bit_length())
        elif isinstance(result, Iterator):
            return result if isinstance(result, Lazy) else Lazy(result)
        return built(result)

    return guarded


def _named(names: tuple[str, ...], arguments: tuple[object, ...]) -> dict[str, object]:
    return {names[at] if at < len(names) else f"argument {at}": value for at, value in enumerate(arguments)}


def _check_argument(name: str, value: object) -> None:
    """Charge an argument, which may be compared, hashed or shown; refuse a very long path to an attribute."""
    if isinstance(value, str):
        if name == "attribute" and len(value) > _MAX_ATTRIBUTE:
            refuse(f"names an attribute with more than {_MAX_ATTRIBUTE} characters")
    elif not isinstance(value, (Lazy, int)):
        charge(measure(value))


def _compare(value: object, given: tuple[object, ...]) -> None:
    for side in (value, *given):
        weighed(side)


def _contained(value: object, given: tuple[object, ...]) -> None:
    weighed(value)
    for side in given:
        searched(side)


def _divide(value: object, given: tuple[object, ...]) -> None:
    charge_operator("%", value, given[0] if given else 2)


def _read(value: object, given: tuple[object, ...]) -> None:
    charge(measure(value) * 4)


_COMPARISONS = (
    *("!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "le", "lessthan", "lt", "ne"),
)

# The rule of each test; None if it looks at the type or the identity of the value only.
TESTS: dict[str, Callable[[object, tuple[object, ...]], None] | None] = {
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(("boolean", "callable", "defined", "escaped", "false", "float", "integer", "iterable")),
    **dict.fromkeys(("mapping", "none", "number", "sameas", "sequence", "string", "true", "undefined")),
    **dict.fromkeys(("divisibleby", "even", "odd"), _divide),
    **dict.fromkeys(("filter", "lower", "test", "upper"), _read),
    "in": _contained,
}


def guarded_tests(tests: Mapping[str, Callable[..., object]]) -> dict[str, Callable[..., object]]:
    """Return the tests that have a rule, each with its rule."""
    return {name: _guarded_test(TESTS[name], function) for name, function in tests.items() if name in TESTS}


def _guarded_test(
    rule: Callable[[object, tuple[object, ...]], None] | None, function: Callable[..., object]
) -> Callable[..., object]:
    if rule is None:
        return function
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def guarded(*arguments: object, **options: object) -> object:
        if len(arguments) > first:
            rule(arguments[first], (*arguments[first + 1 :], *options.values()))
        return function(*arguments, **options)

    return guarded
