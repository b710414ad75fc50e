"""`Any` tells a reader nothing: its number only falls."""

from __future__ import annotations

import re
from pathlib import Path

import faster_smolvlm

from tests.helpers.import_graph import modules

PACKAGE = Path(faster_smolvlm.__file__).parent
LIMIT = 170
"""How often the word stands in the package, kernels and `_rust.pyi` too; a change that needs fewer lowers it."""


def test_any_is_rare() -> None:
    counts = {
        path.relative_to(PACKAGE).as_posix(): len(re.findall(r"\bAny\b", path.read_text()))
        for path in modules(PACKAGE).values()  # also through the link to the kernels, which a wheel holds as files
    }
    total, worst = sum(counts.values()), sorted(counts, key=counts.__getitem__, reverse=True)[:10]
    most = ", ".join(f"{name} ({counts[name]})" for name in worst)
    assert total <= LIMIT, f"{total} mentions of Any, most in {most}"
