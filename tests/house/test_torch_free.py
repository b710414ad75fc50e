"""generation/ and native/ never import torch: not in functions and not for type checkers either."""

from __future__ import annotations

import ast
from pathlib import Path

import faster_smolvlm
import pytest

PACKAGE = Path(faster_smolvlm.__file__).parent


def imported(path: Path) -> set[str]:
    """The first part of every module that a file imports by its whole name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("folder", ["generation", "native"])
def test_the_loop_and_the_native_engine_never_import_torch(folder: str) -> None:
    files = sorted((PACKAGE / folder).glob("*.py"))
    assert "numpy" in set().union(*map(imported, files))
    assert [file.name for file in files if "torch" in imported(file)] == []
