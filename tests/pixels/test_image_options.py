"""What the image processors offer beyond Transformers: plans, budgets, small pictures, output types."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import SmolVLMImageProcessor, SmolVLMImageProcessorPil
from faster_smolvlm.media import MediaPolicy, load_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

SMALL: dict[str, Any] = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 16}}
sides = st.integers(1, 300)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=200, deadline=None)
@given(
    sides, sides, st.sampled_from([64, 60, 70, 16, 100]), st.none() | st.integers(0, 20), st.booleans(), st.booleans()
)
def test_plan_is_what_happens(
    height: int, width: int, edge: int, max_tiles: int | None, upscale: bool, split: bool
) -> None:
    options = {"max_tiles": max_tiles, "upscale": upscale, "do_image_splitting": split, "size": {"longest_edge": edge}}
    processor = SmolVLMImageProcessor(**SMALL)
    features = processor(
        noise(height, width),
        return_row_col_info=True,
        return_tensors="np",
        input_data_format="channels_last",
        **options,
    )
    plan = processor.plan(width, height, **options)
    assert (features["rows"], features["cols"]) == ([[plan.rows]], [[plan.cols]])
    assert features["pixel_values"].shape[1] == plan.frames
    assert max_tiles is None or plan.rows * plan.cols <= max_tiles


def test_plan_counts_the_prompt(configured_checkpoint: Callable[[str], Path]) -> None:
    from faster_smolvlm import SmolVLMProcessor

    processor = SmolVLMProcessor.from_pretrained(configured_checkpoint("256m"))
    bare = sum(len(processor.tokenizer(text)["input_ids"]) for text in ("a", "b"))
    for height, width in ((1, 1), (1080, 1920), (1920, 1080), (10, 5000), (300, 300)):
        for split in (True, False):
            image = np.zeros((height, width, 3), np.uint8)
            ids = processor(
                text="a<image>b",
                images=[image],
                do_image_splitting=split,
                input_data_format="channels_last",
                return_tensors="np",
            )["input_ids"]
            plan = processor.image_processor.plan(
                width, height, image_seq_len=processor.image_seq_len, do_image_splitting=split
            )
            assert ids.shape[-1] - bare == plan.prompt_tokens, (height, width, split)


def test_plan_of_impossible_sizes() -> None:
    processor = SmolVLMImageProcessor(**SMALL)
    with pytest.raises(ValueError, match="no pixels"):
        processor.plan(0, 5)
    with pytest.raises(ValueError, match="no place tokens"):
        _ = processor.plan(50, 50, size={"longest_edge": 160}).prompt_tokens
    with pytest.raises(TypeError, match="unexpected"):
        processor.plan(5, 5, colour=True)


def test_largest_grid_within_a_budget() -> None:
    processor = SmolVLMImageProcessor()
    grids = [processor.plan(1920, 1080, max_tiles=budget, size={"longest_edge": 1456}) for budget in (12, 11, 5, 3, 0)]
    assert [(plan.rows, plan.cols) for plan in grids] == [(3, 4), (2, 3), (2, 2), (0, 0), (0, 0)]


def test_small_pictures_are_left_alone() -> None:
    processor = SmolVLMImageProcessor(**SMALL, upscale=False)
    image = noise(16, 16)
    frames = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    assert np.array_equal(frames[0, 0].astype(np.uint8), image.transpose(2, 0, 1))
    large = noise(100, 120)
    options = {"return_tensors": "np"}
    assert np.array_equal(
        processor(large, **options)["pixel_values"], processor(large, upscale=True, **options)["pixel_values"]
    )


@pytest.mark.parametrize("kind", [SmolVLMImageProcessor, SmolVLMImageProcessorPil])
def test_output_types(kind: type) -> None:
    processor = kind(**SMALL)
    batch = [[noise(40, 60)], [noise(50, 30), noise(20, 20)]]
    exact = processor(batch, return_tensors="pt")["pixel_values"]
    half = processor(batch, return_tensors="pt", output_dtype="bfloat16")["pixel_values"]
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, exact.to(torch.bfloat16))
    assert torch.equal(processor(batch, return_tensors="pt", output_dtype=torch.bfloat16)["pixel_values"], half)
    raw = processor(batch, return_tensors="pt", do_rescale=False, do_normalize=False)["pixel_values"]
    octets = processor(batch, return_tensors="pt", output_dtype="uint8")
    assert octets["pixel_values"].dtype == torch.uint8
    assert torch.equal(octets["pixel_values"].float(), raw.float())
    assert octets["pixel_attention_mask"].dtype == torch.int64
    floats = noise(30, 30).astype(np.float32)
    assert processor(floats, return_tensors="pt", output_dtype="bfloat16")["pixel_values"].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="uint8 values"):
        processor(floats, output_dtype="uint8")
    with pytest.raises(ValueError, match="NumPy has no bfloat16"):
        processor(batch, return_tensors="np", output_dtype="bfloat16")
    with pytest.raises(ValueError, match="output_dtype must be one of"):
        processor(batch, output_dtype="float16")


def photo(width: int, height: int, name: str = "JPEG", **options: Any) -> bytes:
    """A file of a smooth picture."""
    rows, cols = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(rows / 37 + cols / 53 + phase) for phase in range(3)]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)).save(buffer, name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("edge", "factor"), [(None, 1), (641, 1), (321, 1), (320, 2), (161, 2), (160, 4), (80, 8), (1, 8)]
)
def test_reduced_decoding(edge: int | None, factor: int) -> None:
    policy = MediaPolicy(reduced_edge=edge)
    for width, height in ((640, 480), (479, 640)):
        file = photo(width, height, quality=95)
        full, close = load_image(file), load_image(file, policy)
        assert close.size == (-(-width // factor), -(-height // factor))
        if factor == 1:
            assert close.tobytes() == full.tobytes()
        off = np.asarray(full.reduce(factor)).astype(float) - np.asarray(close)
        assert np.abs(off).mean() < 1
        assert load_image(photo(width, height, "PNG"), policy).size == (width, height)
    turned = Image.Exif()
    turned[0x0112] = 6
    assert load_image(photo(640, 480, exif=turned), policy).size == (480 // factor, 640 // factor)


def test_reduced_decoding_is_off_unless_asked_for() -> None:
    assert MediaPolicy().reduced_edge is None
    assert MediaPolicy.strict().reduced_edge is None
    file = photo(640, 480)
    processor, reduced = SmolVLMImageProcessor(**SMALL), SmolVLMImageProcessor(**SMALL)
    reduced.media_policy = MediaPolicy(reduced_edge=320)
    exact = processor(load_image(file), return_tensors="np")["pixel_values"]
    assert np.array_equal(processor(file, return_tensors="np")["pixel_values"], exact)
    close = reduced(file, return_tensors="np")["pixel_values"]
    assert not np.array_equal(close, exact)
    assert np.abs(close - exact).mean() * 127.5 < 2
    with pytest.raises(ValueError, match="reduced_edge must be positive"):
        MediaPolicy(reduced_edge=0)
    with pytest.raises(ValueError, match="max_pixels"):
        load_image(file, MediaPolicy(reduced_edge=80, max_pixels=640 * 480 - 1))


def test_options_are_not_in_the_files_unless_set() -> None:
    assert not {"max_tiles", "upscale", "output_dtype"} & SmolVLMImageProcessor().to_dict().keys()
    assert SmolVLMImageProcessor(max_tiles=4).to_dict()["max_tiles"] == 4


def test_the_number_of_threads_changes_nothing() -> None:
    import os
    import subprocess
    import sys

    program = (
        "import hashlib, numpy as np; from faster_smolvlm import SmolVLMImageProcessor;"
        "a = np.random.default_rng(0).integers(0, 256, (333, 500, 3), dtype=np.uint8);"
        "p = SmolVLMImageProcessor(size={'longest_edge': 256}, max_image_size={'longest_edge': 64});"
        "f = p([[a], [a[:200]], [a[:, :90]]], return_tensors='np');"
        "print(hashlib.sha256(f['pixel_values'].tobytes() + f['pixel_attention_mask'].tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "FASTER_SMOLVLM_NUM_THREADS": threads, "FASTER_SMOLVLM_IMAGE_KERNELS": kernels},
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        for threads, kernels in (("1", ""), ("2", ""), ("5", ""), ("2", "portable"), ("1", "scalar"))
    }
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["abacus", "amx"])
def test_kernels_that_pictures_do_not_have_are_refused(name: str) -> None:
    import os
    import subprocess
    import sys

    program = "from faster_smolvlm import _rust; print(_rust.kernel_names())"
    environment = {**os.environ, "FASTER_SMOLVLM_IMAGE_KERNELS": name}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ended.returncode != 0
    assert f"ValueError: configuration: FASTER_SMOLVLM_IMAGE_KERNELS={name}: this machine has" in ended.stderr
