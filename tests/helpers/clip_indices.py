"""Which frames a test asks for, as the functions that readers take."""

from __future__ import annotations

from typing import Any

import numpy as np


def at(indices: Any) -> Any:
    """Ask for these frames."""
    return lambda metadata, **unused: np.asarray(indices)


def few(metadata: Any, **unused: Any) -> np.ndarray:
    """Ask for six frames, evenly spaced."""
    return np.unique(np.linspace(0, metadata.total_num_frames - 1, 6).astype(int))
