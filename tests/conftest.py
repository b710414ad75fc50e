"""Shared fixtures: whether the Rust core was at work; the others are in tests/helpers."""

from __future__ import annotations

from typing import Any

import pytest
from faster_smolvlm import _rust

pytest.register_assert_rewrite("tests.helpers")
pytest_plugins = ["tests.helpers.checkpoints", "tests.helpers.fixtures"]


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
