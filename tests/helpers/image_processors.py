"""Both image processors of ours and of Transformers, and their comparison."""

from __future__ import annotations

from typing import Any

import faster_smolvlm
import numpy as np
import pytest
import torch
import transformers

NAMES = ("SmolVLMImageProcessor", "SmolVLMImageProcessorPil")
SMALL = {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}
REAL = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}


def both(name: str, **settings: Any) -> tuple[Any, Any]:
    return getattr(transformers, name)(**settings), getattr(faster_smolvlm, name)(**settings)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_same(theirs: Any, ours: Any, atol: float = 0.0) -> None:
    assert type(ours) is type(theirs)
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for a, b in zip(theirs, ours, strict=True):
            assert_same(a, b, atol)
    elif isinstance(theirs, (np.ndarray, torch.Tensor)):
        assert ours.dtype == theirs.dtype
        assert tuple(ours.shape) == tuple(theirs.shape)
        a, b = np.asarray(theirs), np.asarray(ours)
        if atol:
            np.testing.assert_allclose(b, a, rtol=0, atol=atol)
        else:
            np.testing.assert_array_equal(b, a)
    else:
        assert ours == theirs


def compare(name: str, images: Any, *, atol: float = 0.0, settings: dict[str, Any] | None = None, **call: Any) -> Any:
    """Run both sides and compare every entry; returns ours."""
    reference, processor = both(name, **(settings or SMALL))
    call = {"return_tensors": "pt", "return_row_col_info": True, **call}
    theirs, ours = reference(images, **call), processor(images, **call)
    assert list(ours) == list(theirs)
    for key in theirs:
        assert_same(theirs[key], ours[key], atol if key == "pixel_values" else 0.0)
    return ours


def compare_error(name: str, images: Any, *, settings: dict[str, Any] | None = None, **call: Any) -> Exception:
    """Both sides must raise; ours must be caught by an except clause for theirs."""
    reference, processor = both(name, **(settings or SMALL))
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - the point is to learn its type
        reference(images, **call)
    with pytest.raises(theirs.type) as ours:
        processor(images, **call)
    return ours.value
