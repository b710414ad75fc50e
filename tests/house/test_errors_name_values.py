"""Messages: `quoting` shows and bounds values, and every error that a caller can meet has a public name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import faster_smolvlm
import pytest
from faster_smolvlm.integrations import transformers as integration

PACKAGE = Path(faster_smolvlm.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "kernels" not in path.relative_to(PACKAGE).parts)
# They describe an object, or a name that the program itself wrote.
DESCRIBING = ("__repr__", "__getattr__", "__getitem__")
CLASSES = ("type(self).__name__", "_PACKAGE")
# (file, what is written with !r): names and texts of our own.
OWN = {
    ("unknown_names.py", "nearest"),
    ("cli/describe.py", "DEFAULT_PROMPT"),
    ("cli/describe.py", "DEFAULT_CLIP_PROMPT"),
}
# They end inside of the package, at what they stand for.
INNER = {
    "BrokenStreamError", "StoppedError", "ShortStreamError", "LookupTimeoutError", "UnknownHostError",
    "AddressRefusedError", "InvalidURLError", "OutOfTimeError", "UnsupportedModelError", "CaptureError",
}  # fmt: skip


def written_bare(tree: ast.AST, inside: str = "") -> Iterator[str]:
    """Yield the expressions that f-strings write with !r."""
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, ast.FunctionDef) else inside
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r") and name not in DESCRIBING:
            expression = ast.unparse(node.value)
            if expression not in CLASSES:
                yield expression
        yield from written_bare(node, name)


def test_values_in_messages_are_bounded() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), expression)
        for path in FILES
        for expression in written_bare(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == OWN
    assert [*written_bare(ast.parse('f"{a!r} {b}"'))] == ["a"]


def errors_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.bases and not node.name.startswith("_"):
            bases = {ast.unparse(base) for base in node.bases}
            if node.name.endswith("Error") or bases & {"Exception", "BaseException"}:
                yield node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_errors_have_public_names(path: Path) -> None:
    for name in errors_of(path):
        if name in INNER or name == "CancelledCall":
            continue
        assert name in faster_smolvlm.__all__ or name in integration.__all__, name
