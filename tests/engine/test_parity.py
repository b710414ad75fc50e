"""The native engine against Transformers on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
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


def test_the_real_256m_configuration(real: Saved) -> None:
    """One picture without splitting: every logit in float32, and the error budgets of bfloat16 and int8 weights."""
    inputs = prompt(real.model.config, 1, 150)
    expected = reference(real.model, inputs)[0]
    with torch.no_grad():
        encoded = real.model.model.get_image_features(torch.from_numpy(inputs["pixel_values"])).pooler_output
    features = torch.cat(list(encoded)).numpy()
    budgets: list[tuple[dict[str, str], float, float]] = [
        ({}, 1 - 1e-6, 1 - 1e-6),
        ({"dtype": "bfloat16"}, 0.9998, 0.9999),
        ({"quantization": "int8"}, 0.999, 0.9995),
    ]
    for options, logits_cosine, vision_cosine in budgets:
        native = NativeSmolVLM.from_pretrained(real.directory, cache_positions=512, **options)
        frames = native.frames(inputs["pixel_values"])
        vision, _ = native.encode(frames, reuse=False)
        given = native.logits(inputs["input_ids"], features=vision)
        assert cosine(vision, features).min() >= vision_cosine, options
        assert np.median(cosine(given, expected)) >= logits_cosine, options
        if not options:
            np.testing.assert_allclose(given, expected, atol=1e-4 * max(1.0, float(expected.std())))
