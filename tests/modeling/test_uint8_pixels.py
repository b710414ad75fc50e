"""Models take the bytes of a picture (`output_dtype="uint8"`) and do what the image processor left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faster_smolvlm
import numpy as np
import pytest
import torch
from faster_smolvlm import AutoModelForImageTextToText, AutoProcessor
from faster_smolvlm.native import NativeSmolVLM

DEMO = Path(faster_smolvlm.__file__).parent / "demo"


@pytest.fixture(scope="module")
def batches() -> tuple[Any, Any]:
    """The same pictures as float32 and as bytes: samples of different lengths, one picture all black."""
    process = AutoProcessor.from_pretrained("demo").image_processor
    noise = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    pictures = [[noise, np.zeros((50, 60, 3), np.uint8)], [noise[:, ::-1]]]
    exact, octets = (process(pictures, return_tensors="pt", output_dtype=name) for name in ("float32", "uint8"))
    assert octets["pixel_values"].dtype == torch.uint8
    assert octets["pixel_values"].nbytes * 4 == exact["pixel_values"].nbytes
    return exact, octets


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_torch(batches: tuple[Any, Any], dtype: torch.dtype, tolerance: float) -> None:
    model = AutoModelForImageTextToText.from_pretrained("demo", dtype=dtype).eval()
    with torch.no_grad():
        exact, octets = (model.get_image_features(**batch).pooler_output for batch in batches)
    assert [len(rows) for rows in octets] == [len(rows) for rows in exact]
    for a, b in zip(exact, octets, strict=True):
        scale = float(a.float().pow(2).mean().sqrt())
        torch.testing.assert_close(b.float(), a.float(), rtol=0, atol=tolerance * max(1.0, scale))


def test_native(batches: tuple[Any, Any]) -> None:
    model = NativeSmolVLM.from_pretrained(DEMO)
    exact, octets = ([np.asarray(batch[key]) for key in batch] for batch in batches)
    first, second = (model.encode(model.frames(*arrays), reuse=False)[0] for arrays in (exact, octets))
    assert np.array_equal(first, second)
