"""Shared fixtures: where the real test data is, and whether the Rust core was at work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from faster_smolvlm import _rust

pytest.register_assert_rewrite("tests.helpers")
pytest_plugins = ["tests.helpers.checkpoints", "tests.helpers.fixtures"]

ROOT = Path(__file__).resolve().parents[1]


def _data_dir() -> Path | None:
    """Return the folder of real pictures, clips, configs and texts, or None; it is never part of the repository."""
    path = Path(os.environ.get("FASTER_SMOLVLM_DATA", ROOT.parent / "shared" / "data"))
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    path = _data_dir()
    if path is None:
        pytest.skip("the real test data is not here: set FASTER_SMOLVLM_DATA to its folder")
    return path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each call that the Rust core serves."""
    calls: list[int] = []
    original = _rust.preprocess

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(_rust, "preprocess", counted)
    return calls
