"""The native engine against Transformers on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from faster_smolvlm.native import NativeSmolVLM

from .conftest import Saved, prompt, reference


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("name", ["odd", "large", "idefics3"])
@pytest.mark.parametrize(("frames", "words"), [(0, 1), (0, 300), (1, 20), (3, 77)])
def test_logits_of_every_position(tiny: Callable[[str], Saved], name: str, frames: int, words: int) -> None:
    saved = tiny(name)
    inputs = prompt(saved.model.config, frames, words)
    expected = reference(saved.model, inputs)[0]
    assert expected.std() > 0.05
    native = NativeSmolVLM.from_pretrained(saved.directory)
    assert native.dtype == "float32"
    given = native.logits(
        inputs["input_ids"],
        pixel_values=inputs.get("pixel_values"),
        pixel_attention_mask=inputs.get("pixel_attention_mask"),
    )
    assert given.shape == expected.shape
    np.testing.assert_allclose(given, expected, atol=2e-5 * max(1.0, np.abs(expected).max()))
