"""JSON files of a checkpoint: the one reader, and the one layout that is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]
"""What a JSON file of a checkpoint holds: values by name. Who reads an entry checks its type."""


def read_json(path: Path) -> JsonObject:
    """Return the JSON object in a file. Raises OSError, naming the file, if it holds anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise OSError(f"It looks like {str(path)!r} is not a valid JSON file: {error}") from error
    if not isinstance(values, dict):
        raise OSError(f"{str(path)!r} must hold a JSON object, but it holds a {type(values).__name__}.")
    return values


def read_optional_json(path: Path | None) -> JsonObject:
    """As `read_json`, but no file (None) is an empty object."""
    return {} if path is None else read_json(path)


def json_text(values: Mapping[str, object]) -> str:
    """Return `values` as the text of a file: two spaces of indent, sorted keys, a newline at the end."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
