"""JSON files of a checkpoint: the one reader, and the one layout that is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..quoting import shown

JsonObject = dict[str, Any]
"""What a JSON file of a checkpoint holds: values by name. Who reads an entry checks its type."""


MAX_BYTES = 64 << 20
"""The largest file of a checkpoint that is read as a whole; the largest tokenizers have half of that."""

MAX_JSON = 8 << 20
"""The largest file that is read as JSON, in bytes: its values can take thirty times as much memory."""

MAX_DEPTH = 64
"""How deep the values of a JSON file may be nested."""

MAX_BITS = 256
"""The longest integer of a JSON file; `model_max_length` has 100 bits in many of them."""

_LONGEST_REASON = 350
_LONGEST_PATH = 4


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """Return the UTF-8 text of a file. Raises OSError, naming the file, for more than `limit` bytes or another text."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"{shown(str(path))} has more than {limit} bytes; nothing of that size is read of a checkpoint.")
    try:
        # Newlines as `open` reads them.
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise OSError(f"{shown(str(path))} is not UTF-8 text: {error.reason} at byte {error.start}.") from None


def read_json(path: Path) -> JsonObject:
    """Return the JSON object in a file. Raises OSError, naming the file, if it holds anything else.

    Also for an entry that no reader can use: nested too deeply, an integer of too many bits, half of a character.
    """
    text = read_text(path, MAX_JSON)
    try:
        values = json.loads(text)
    except RecursionError:
        raise OSError(f"{shown(str(path))} is nested too deeply.") from None
    except ValueError as error:  # JSONDecodeError, or a number of thousands of digits
        raise OSError(f"It looks like {shown(str(path))} is not a valid JSON file: {error}") from error
    if not isinstance(values, dict):
        raise OSError(f"{shown(str(path))} must hold a JSON object, but it holds a {type(values).__name__}.")
    problem = _problem(values)
    if problem:
        raise OSError(f"The entry {_culprit(values)} of {shown(str(path))} {problem}.")
    return values


def _problem(value: object) -> str:
    """Say what no reader can use in a value, level by level; "" if there is nothing."""
    level: list[object] = [value]
    depth = 0
    while level:
        if depth > MAX_DEPTH:
            return f"is nested deeper than {MAX_DEPTH} levels"
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str):
                if not item.isascii() and any("\ud800" <= letter <= "\udfff" for letter in item):
                    return "holds a lone surrogate, half of a character"
            elif isinstance(item, int) and item.bit_length() > MAX_BITS:
                return f"holds an integer of {item.bit_length()} bits; at most {MAX_BITS} are read"
        level, depth = inner, depth + 1
    return ""


def _culprit(values: object) -> str:
    """Return the names of the entries, from the outermost on, that lead to what `_problem` finds."""
    names: list[str] = []
    while isinstance(values, dict) and len(names) < _LONGEST_PATH:
        found = next((key for key, value in values.items() if _problem(key) or _problem(value)), None)
        if found is None:
            break
        names.append(shown(found)[:40])
        values = values[found]
    return " → ".join(names) or "at the top"


@contextmanager
def naming_file(path: Path | None) -> Iterator[None]:
    """Let an error about the values of a file name the file, in bounded length; its type stays. None: no file."""
    try:
        yield
    except Exception as error:
        text = error.args[0] if len(error.args) == 1 else None
        if path is not None and isinstance(text, str) and not isinstance(error, OSError):
            reason = text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"
            error.args = (f"{shown(path.name)} in {shown(str(path.parent))}: {reason}",)
        raise


def read_optional_json(path: Path | None) -> JsonObject:
    """As `read_json`, but no file (None) is an empty object."""
    return {} if path is None else read_json(path)


def json_text(values: Mapping[str, object]) -> str:
    """Return `values` as the text of a file: two spaces of indent, sorted keys, a newline at the end."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
