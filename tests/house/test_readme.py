"""The first example of the README prints what the README says, and no line is too long to read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_example_prints_what_stands_below_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(?P<code>.*?)```\n\n```text\n(?P<output>.*?)```", text, re.DOTALL)
    assert example is not None
    assert text.index("```python") == example.start(), "the example with its output comes first"
    done = subprocess.run(
        [sys.executable, "-c", example["code"]],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "FASTER_SMOLVLM_ENGINE": "native", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == example["output"].strip()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_no_line_is_too_long(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert not [f"{name}:{number}" for number, line in enumerate(lines, 1) if len(line) > 120]
