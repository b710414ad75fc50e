"""The native resize against Pillow and torchvision, and the fast kernels against the definition, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faster_smolvlm import _rust
from faster_smolvlm.pixels.arithmetic import Pillow, Torch
from faster_smolvlm.pixels.conversion import _conversion
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

MODES = {1: InterpolationMode.LANCZOS, 2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}
sides = st.integers(1, 300)
KERNELS = _rust.kernel_names()


def pixels(height: int, width: int, seed: int, binary: bool = False) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return (image > 127).astype(np.uint8) * 255 if binary else image


@settings(max_examples=150, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 5), st.booleans())
def test_equals_pillow(height: int, width: int, to_height: int, to_width: int, resample: int, binary: bool) -> None:
    image = pixels(height, width, height, binary)
    expected = np.asarray(Image.fromarray(image).resize((to_width, to_height), resample))
    actual = _rust.resize(image, to_height, to_width, resample=resample, arithmetic="pillow")
    np.testing.assert_array_equal(actual, expected)


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.integers(2, 300), st.integers(2, 300), st.sampled_from(list(MODES)), st.booleans())
def test_equals_torchvision(
    height: int, width: int, to_height: int, to_width: int, resample: int, binary: bool
) -> None:
    image = pixels(height, width, width, binary)
    planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    expected = tv.resize(planes, [to_height, to_width], interpolation=MODES[resample], antialias=True)
    actual = _rust.resize(image, to_height, to_width, resample=resample, arithmetic="torch")
    np.testing.assert_array_equal(actual, expected.permute(1, 2, 0).numpy())


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(2, 300), st.integers(2, 300), st.sampled_from(list(MODES)))
def test_floats_equal_torchvision(height: int, width: int, to_height: int, to_width: int, resample: int) -> None:
    image = pixels(height, width, 1).astype(np.float32) / 255
    planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    expected = tv.resize(planes, [to_height, to_width], interpolation=MODES[resample], antialias=True)
    actual = _rust.resize_float32(image, to_height, to_width, resample=resample)
    np.testing.assert_allclose(actual, expected.permute(1, 2, 0).numpy(), atol=2e-6)
    wide = _rust.resize_float64(image.astype(np.float64), to_height, to_width, resample=resample)
    expected = tv.resize(planes.double(), [to_height, to_width], interpolation=MODES[resample], antialias=True)
    np.testing.assert_allclose(wide, expected.permute(1, 2, 0).numpy(), atol=1e-12)


@pytest.mark.parametrize("resample", [4, 5])
def test_filters_that_torchvision_lacks(resample: int) -> None:
    with pytest.raises(NotImplementedError, match="Pillow arithmetic only"):
        _rust.resize(pixels(4, 4, 0), 8, 8, resample=resample, arithmetic="torch")


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    tile=st.sampled_from([16, 31, 32, 40, 64]),
    times=st.integers(1, 5),
    split=st.booleans(),
    resample=st.integers(1, 5),
    arithmetic=st.sampled_from([Torch(), Pillow()]),
    dtype=st.sampled_from([np.float32, np.uint16, np.uint8]),
)
def test_every_instruction_set_equals_the_definition(
    height: int, width: int, tile: int, times: int, split: bool, resample: int, arithmetic: Torch, dtype: type
) -> None:
    resample = min(resample, 3) if arithmetic.name == "torch" else resample
    target = {"longest_edge": tile * times + times % 2, "exact": None}
    sizes = _rust.ImageSizes(tile=tile, split=split, **target)
    *_, rows, cols = _rust.layout(height, width, sizes=sizes)
    table, formula = _conversion(arithmetic, 3, True, 1 / 255, True, (0.5, 0.4, 0.3), (0.5, 0.25, 0.3))
    outputs = []
    for kernels in ["scalar", *KERNELS]:
        # What a kernel forgets to write keeps a value that differs between them.
        out = np.full((rows * cols + 1, 3, tile, tile), len(outputs), dtype=dtype)
        options = {"resample": resample, "arithmetic": arithmetic.name, "kernels": kernels}
        made = _rust.ImageSettings(sizes, table=table, formula=formula, **options)
        _rust.preprocess([pixels(height, width, 3)], [0], out, made)
        outputs.append(out)
    for kernels, out in zip(KERNELS, outputs[1:], strict=True):
        assert out.tobytes() == outputs[0].tobytes(), kernels


def test_wrong_arguments_are_errors() -> None:
    image, out = pixels(8, 8, 0), np.empty((1, 3, 4, 4), np.float32)
    table, formula = _conversion(Torch(), 3, True, 1 / 255, True, (0.5,) * 3, (0.5,) * 3)
    sizes = {"longest_edge": 4, "exact": None, "tile": 4, "split": False}
    settings = {"resample": 1, "arithmetic": "torch", "table": table, "formula": formula}
    for changes, message in (
        ({"resample": 6}, "resample must be one of"),
        ({"arithmetic": "numpy"}, "arithmetic must be"),
        ({"kernels": "abacus"}, "kernels must be one of"),
        ({"table": table[:, :9].copy()}, "256 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            _rust.ImageSettings(_rust.ImageSizes(**sizes), **{**settings, **changes})
    good = _rust.ImageSettings(_rust.ImageSizes(**sizes), **settings)
    zero = _rust.ImageSettings(_rust.ImageSizes(**{**sizes, "longest_edge": 0}), **settings)
    other = _rust.ImageSettings(_rust.ImageSizes(**{**sizes, "tile": 5}), **settings)
    for places, images, made, message in (
        ([0], [image], zero, "longest edge must be at least 1"),
        ([0], [image], other, "the tile is 5"),
        ([1], [image], good, "the output holds"),
        ([], [image], good, "pictures and"),
        ([0], [image[:0]], good, "no pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            _rust.preprocess(images, places, out, made)
    with pytest.raises(TypeError):
        _rust.preprocess([image.astype(np.float32)], [0], out, good)


def test_sizes_beyond_memory_are_errors() -> None:
    image = pixels(4, 4, 0)
    with pytest.raises(MemoryError):
        _rust.resize(image, 1 << 40, 1 << 40, resample=2, arithmetic="pillow")
    with pytest.raises(MemoryError):
        _rust.resize_float32(image.astype(np.float32), 1, 1 << 60, resample=2)
    with pytest.raises(ValueError, match="the longest is"):
        _rust.layout(4, 4, sizes=_rust.ImageSizes(longest_edge=None, exact=(1 << 40, 4), tile=4, split=True))
    with pytest.raises(ValueError, match="at most 4194304"):
        _rust.uniform_frames(1 << 60, 1 << 60)
    with pytest.raises(ValueError, match="at most 4194304"):
        _rust.sample_frames(1 << 60, 30.0, 1e300, 1 << 60, 1.0)
