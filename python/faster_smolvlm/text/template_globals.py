"""The functions that a chat template may call by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NoReturn

from jinja2.exceptions import TemplateError
from jinja2.runtime import LoopContext
from jinja2.sandbox import safe_range
from jinja2.utils import Cycler, Joiner, Namespace

from ..quoting import shown
from .template_limits import MAX_ODD_KEYS, STEP, Lazy, charge, count_of, refuse, weighed

_MAX_LAYOUT = 1000


class DictBuilder:
    """`dict(…)` for templates, without the attributes of the type."""

    def __call__(self, items: object = (), **kwargs: object) -> dict[object, object]:
        """Return a dict of a mapping or of pairs, and of names."""
        return _dict_of((*_pairs(items), *kwargs.items()))

    def fromkeys(self, keys: Iterable[object], value: object = None) -> dict[object, object]:
        """Return a dict with the given keys."""
        return _dict_of((key, value) for key in spread(keys))


class TemplateNamespace(Namespace):
    """`namespace(…)` for templates, without names that begin with an underscore."""

    def __init__(*args: object, **kwargs: object) -> None:
        self, values = args[0], DictBuilder()(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(self, values)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return "<Namespace>"  # jinja2's shows what it holds, which may be much

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def spread(values: object) -> Iterable[object]:
    """Charge the items that are taken one by one, and return them. Raises TypeError for a value that has none."""
    if isinstance(values, LoopContext):
        refuse("takes the items of the state of a loop")
    if isinstance(values, Iterable):
        charge(count_of(values) * STEP)
        return values
    raise TypeError(f"'{type(values).__name__}' object is not iterable")


def _pairs(items: object) -> Iterable[tuple[object, object]]:
    if isinstance(items, Mapping):
        return items.items()
    return map(_pair, spread(items))


def _pair(item: object) -> tuple[object, object]:
    if not isinstance(item, Lazy) and count_of(item) != 2:
        raise ValueError("an item of a mapping must be a key and a value")
    key, value = spread(item)
    return key, value


def _dict_of(pairs: Iterable[tuple[object, object]]) -> dict[object, object]:
    made: dict[object, object] = {}
    odd = 0
    for key, value in pairs:
        odd += not isinstance(key, str)
        if odd > MAX_ODD_KEYS:
            refuse(f"builds a mapping of more than {MAX_ODD_KEYS} keys that are no texts")
        made[weighed(key)] = value
    return made


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        refuse(f"cannot store the underscore-prefixed name {shown(name)}")


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write a value as JSON; jinja2's own filter escapes HTML, which a prompt is not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError(message if isinstance(message, str) else shown(message))


def _strftime_now(layout: str) -> str:
    if len(layout) > _MAX_LAYOUT:
        refuse(f"writes the time with a layout of more than {_MAX_LAYOUT} characters")
    charge(STEP + len(layout) * 32)
    return datetime.now().strftime(layout)


GLOBALS: Mapping[str, object] = {
    "cycler": Cycler,
    "dict": DictBuilder(),
    "joiner": Joiner,
    "namespace": TemplateNamespace,
    "raise_exception": _raise_exception,
    "range": safe_range,
    "strftime_now": _strftime_now,
}
"""All of them; `environment()` takes none from jinja2. A call of one costs `CALL`, and what it returns its size."""
