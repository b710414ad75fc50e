"""JSON files of a checkpoint: the one reader, and the one layout that is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..quoting import shown

JsonObject = dict[str, Any]
"""What a JSON file of a checkpoint holds: values by name. Who reads an entry checks its type."""


MAX_BYTES = 64 << 20
"""The largest file of a checkpoint that is read as a whole; the largest tokenizers have half of that."""


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
    """Return the JSON object in a file. Raises OSError, naming the file, if it holds anything else."""
    text = read_text(path)
    try:
        values = json.loads(text)
    except RecursionError:
        raise OSError(f"{shown(str(path))} is nested too deeply.") from None
    except ValueError as error:  # JSONDecodeError, or a number of thousands of digits
        raise OSError(f"It looks like {shown(str(path))} is not a valid JSON file: {error}") from error
    if not isinstance(values, dict):
        raise OSError(f"{shown(str(path))} must hold a JSON object, but it holds a {type(values).__name__}.")
    return values


def read_optional_json(path: Path | None) -> JsonObject:
    """As `read_json`, but no file (None) is an empty object."""
    return {} if path is None else read_json(path)


def json_text(values: Mapping[str, object]) -> str:
    """Return `values` as the text of a file: two spaces of indent, sorted keys, a newline at the end."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
