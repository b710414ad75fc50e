"""What a chat template may see: text, numbers, lists and mappings, and nothing with methods of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_DEPTH = 64
"""How deep lists and mappings of a conversation may be nested."""


def plain_data(value: object, depth: int = 0) -> Any:
    """Copy `value` as None, text, numbers, lists, tuples and dicts; anything else becomes the text "<its type>".

    Raises ValueError if it is nested deeper than `MAX_DEPTH`.
    """
    kind = type(value)
    if value is None or kind in (str, int, float, bool):
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"the conversation is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, (dict, Mapping)):  # a dict is found quicker by its own type
        return {plain_data(key, depth + 1): plain_data(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain_data(item, depth + 1) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    for plain in (str, int, float):  # a subclass may carry methods of its own
        if isinstance(value, plain):
            return str.__str__(value) if plain is str else plain(value)
    if isinstance(value, np.generic):
        return plain_data(value.item(), depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_data(getattr(value, field.name), depth + 1) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)
    return plain_data(dump(), depth + 1) if callable(dump) else f"<{type(value).__name__}>"
