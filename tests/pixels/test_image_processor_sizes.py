"""2,000 generated picture sizes through both image processors, against Transformers, bit for bit."""

from __future__ import annotations

import random
from typing import Any

import faster_smolvlm
import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm import _rust
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytestmark = pytest.mark.parity

NAMES = ("SmolVLMImageProcessor", "SmolVLMImageProcessorPil")


def sizes(count: int, seed: int, largest: int) -> list[tuple[int, int]]:
    """Heights and widths from 1 to `largest`, of ratios up to 1:500."""
    choose = random.Random(seed)
    found: list[tuple[int, int]] = []
    while len(found) < count:
        height, width = (int(2 ** choose.uniform(0, np.log2(largest + 0.99))) for _ in range(2))
        if max(height, width) <= 500 * min(height, width) and height * width <= 1 << 20:
            found.append((height, width))
    return found


def assert_equal(reference: Any, processor: Any, image: np.ndarray, **call: Any) -> None:
    picture = Image.fromarray(image)
    theirs = reference(picture, return_tensors="np", return_row_col_info=True, **call)
    ours = processor(picture, return_tensors="np", return_row_col_info=True, **call)
    assert (ours["rows"], ours["cols"]) == (theirs["rows"], theirs["cols"]), image.shape
    assert ours["pixel_values"].tobytes() == theirs["pixel_values"].tobytes(), image.shape
    assert np.array_equal(ours["pixel_attention_mask"], theirs["pixel_attention_mask"])


@pytest.mark.parametrize("name", NAMES)
def test_generated_sizes(name: str) -> None:
    torch.set_num_threads(1)
    generator = np.random.default_rng(5)
    checkpoints = [(128, 32), (130, 32), (96, 32), (64, 64)]
    sides = [
        [
            getattr(module, name)(size={"longest_edge": edge}, max_image_size={"longest_edge": tile})
            for module in (transformers, faster_smolvlm)
        ]
        for edge, tile in checkpoints
    ]
    for index, (height, width) in enumerate(sizes(2000, 1, 4096)):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if index % 3 == 0:
            image = (image > 127).astype(np.uint8) * 255
        assert_equal(*sides[index % len(sides)], image, do_image_splitting=index % 7 != 0)


@pytest.mark.parametrize("name", NAMES)
def test_generated_sizes_at_real_size(name: str) -> None:
    torch.set_num_threads(1)
    generator = np.random.default_rng(6)
    real = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
    reference, processor = getattr(transformers, name)(**real), getattr(faster_smolvlm, name)(**real)
    for height, width in [*sizes(12, 2, 4096), (1080, 1920), (1920, 1080), (1, 500), (2048, 2048)]:
        assert_equal(reference, processor, generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def reference_grid(height: int, width: int, edge: int, tile: int) -> tuple[Any, Any, int, int]:
    """Sizes after both stages of resizing, rows and columns, as Transformers works them out; no pixels are needed."""
    from transformers.models.smolvlm import image_processing_smolvlm as reference

    seen: list[tuple[int, int]] = []

    class Recorder(reference.SmolVLMImageProcessor):  # type: ignore[misc]
        def resize(self, image: Any, size: Any, resample: Any = None) -> Any:
            seen.append((size.height, size.width))
            return image

    stage_a = reference.get_resize_output_image_size(torch.empty((height, width), device="meta"), edge)
    Recorder.resize_for_vision_encoder(Recorder.__new__(Recorder), torch.empty(stage_a, device="meta"), tile)
    (stage_b,) = seen
    split = stage_b[0] > tile or stage_b[1] > tile
    return stage_a, stage_b, *((stage_b[0] // tile, stage_b[1] // tile) if split else (0, 0))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600))
def test_geometry(height: int, width: int, edge: int, tile: int) -> None:
    layout = _rust.layout(height, width, sizes=_rust.ImageSizes(longest_edge=edge, exact=None, tile=tile, split=True))
    assert layout == reference_grid(height, width, edge, tile)


def test_plan_of_many_sizes() -> None:
    """Every size up to 64 × 64 and 5,000 larger ones, at the settings of the checkpoints and at an uneven one."""
    choose = random.Random(3)
    small = [(height, width) for height in range(1, 65) for width in range(1, 65)]
    large = [(choose.randint(1, 8192), choose.randint(1, 8192)) for _ in range(5000)]
    settings_of = [(2048, 512), (1536, 384), (1456, 364), (1000, 384)]
    sides = {
        each: [
            module.SmolVLMImageProcessor(size={"longest_edge": each[0]}, max_image_size={"longest_edge": each[1]})
            for module in (transformers, faster_smolvlm)
        ]
        for each in settings_of
    }
    for index, (height, width) in enumerate(small + large):
        edge, tile = settings_of[index % len(settings_of)]
        reference, processor = sides[edge, tile]
        plan = processor.plan(width, height)
        rows, cols = reference_grid(height, width, edge, tile)[2:]
        assert (plan.rows, plan.cols, plan.frames) == (rows, cols, rows * cols + 1), (height, width, edge, tile)
        if edge % tile == 0:  # elsewhere what Transformers promises is not what it does
            promised = reference.get_number_of_image_patches(height, width, {})
            assert promised == ((plan.frames, rows, cols) if rows else (0, 0, 0))
        whole = processor.plan(width, height, do_image_splitting=False)
        assert (whole.rows, whole.cols, whole.frames) == (0, 0, 1)
