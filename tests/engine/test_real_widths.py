"""The three real sizes, SmolVLM and Idefics3, with two layers and few tokens, against Transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faster_smolvlm.native import NativeSmolVLM

from benches import engine_numerics

SIZES = ("256m", "500m", "2.2b")


@pytest.mark.parametrize(
    ("size", "family"), [*((size, "smolvlm") for size in SIZES), ("256m", "idefics3"), ("2.2b", "idefics3")]
)
def test_logits_and_image_tokens(data_dir: Path, tmp_path: Path, size: str, family: str) -> None:
    model = engine_numerics.build(
        data_dir / f"smolvlm2-{size}-config", layers=2, vocabulary=1000, family=family, seed=len(size)
    )
    assert model.config.model_type == family
    model.save_pretrained(tmp_path)
    ids, pixels = engine_numerics.inputs_of(model.config, words=20)
    expected, features = engine_numerics.reference(model, ids, pixels)
    native = NativeSmolVLM.from_pretrained(tmp_path, cache_positions=1024)
    vision, _ = native.encode(native.frames(pixels), reuse=False)
    np.testing.assert_allclose(vision, features, atol=1e-4 * max(1.0, float(features.std())))
    given = native.logits(ids, pixel_values=pixels)
    assert expected.std(0).mean() > 0.05, "the positions have to differ for the comparison to mean a thing"
    np.testing.assert_allclose(given, expected, atol=1e-4)
    assert (given.argmax(-1) == expected.argmax(-1)).mean() > 0.99
