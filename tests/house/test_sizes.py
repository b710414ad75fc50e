"""Files, functions and signatures stay small enough to read; the exceptions are listed with their reasons."""

from __future__ import annotations

import ast
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import faster_smolvlm
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(faster_smolvlm.__file__).parent
LINES, FUNCTION_LINES, PARAMETERS, MEDIAN_LINES = 400, 80, 8, 130
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Signatures that Transformers fixes: its users pass these arguments by name.
OF_TRANSFORMERS = {
    "media/video.py": {"load_video"},
    "modeling/modeling_smolvlm.py": {"forward"},
    "processor/chat.py": {"apply_chat_template"},
    "text/tokenization_smolvlm.py": {"__call__"},
}
# Launchers take the tensors that their kernel takes, each at a fixed address; `reference` defines one of them.
OF_KERNELS = {
    "kernels/decode_attention.py": {"decode_attention"},
    "kernels/lm_head_argmax.py": {"lm_head_argmax", "advance"},
    "kernels/qkv_decode.py": {"qkv_decode"},
    "modeling/reference.py": {"qkv_decode"},
}


def python_files(folder: Path) -> list[Path]:
    walk = os.walk(folder, followlinks=True)
    return sorted(Path(inside, name) for inside, _, names in walk for name in names if name.endswith(".py"))


def functions() -> Iterator[tuple[str, Function]]:
    """Yield every function of the package with its file's name within it."""
    for path in python_files(PACKAGE):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path.relative_to(PACKAGE).as_posix(), node


def parameters(function: Function) -> int:
    """Count the parameters, `*args` and `**kwargs` as one each, without `self` and `cls`."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    others = [a for a in (function.args.vararg, function.args.kwarg) if a]
    return len(names) - (names[:1] in (["self"], ["cls"])) + len(others)


def is_compiled(function: Function) -> bool:
    """Return whether Triton compiles the function: it has no structures, so that a kernel's arguments come singly."""
    return any("triton.jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def length(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_long_file() -> None:
    long = {p.relative_to(PACKAGE).as_posix() for p in python_files(PACKAGE) if length(p) > LINES}
    assert not long


@pytest.mark.parametrize("folder", ["tests", "benches", "examples"])
def test_no_long_file_beside_the_package(folder: str) -> None:
    long = {p.relative_to(ROOT).as_posix() for p in python_files(ROOT / folder) if length(p) > LINES}
    assert not long


def test_half_of_the_files_are_short() -> None:
    assert statistics.median(map(length, python_files(PACKAGE))) <= MEDIAN_LINES


def test_no_long_function() -> None:
    long = {
        f"{file}: {function.name}"
        for file, function in functions()
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES
    }
    assert not long


def test_no_wide_signature() -> None:
    wide = {
        f"{file}: {function.name} takes {parameters(function)}"
        for file, function in functions()
        if parameters(function) > PARAMETERS and not is_compiled(function)
        if not any(function.name in names.get(file, ()) for names in (OF_TRANSFORMERS, OF_KERNELS))
    }
    assert not wide
