"""The folder of real pictures, clips, configurations and texts; it is never part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def data_folder() -> Path | None:
    path = Path(os.environ.get("FASTER_SMOLVLM_DATA", ROOT.parent / "shared" / "data"))
    return path if path.is_dir() else None
