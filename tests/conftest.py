"""Shared fixtures: where the real test data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
