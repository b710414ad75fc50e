"""Pictures are read where they lie, whatever their memory looks like, and give the frames of a plain copy."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import SmolVLMImageProcessor, SmolVLMImageProcessorPil
from faster_smolvlm._rust import ImageSettings, ImageSizes, kernel_names, preprocess
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

SMALL: dict[str, Any] = {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}
CLASSES = (SmolVLMImageProcessor, SmolVLMImageProcessorPil)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * 7 + width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def frames(kind: type, picture: Any, **call: Any) -> np.ndarray:
    pixels: np.ndarray = kind(**SMALL)([[picture]], return_tensors="np", **call)["pixel_values"]
    return pixels


@pytest.fixture(params=[32, 256])
def small_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let Pillow keep pictures in blocks of so many KiB, as it keeps those of more than 16 MB otherwise."""
    before = Image.core.get_block_size()
    Image.core.set_block_size(request.param << 10)
    yield
    Image.core.set_block_size(before)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (31, 33), (100, 150), (257, 64), (700, 500)])
def test_pil_images(kind: type, size: tuple[int, int]) -> None:
    array = noise(*size)
    expected = frames(kind, array, input_data_format="channels_last")
    assert np.array_equal(frames(kind, Image.fromarray(array)), expected)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("size", [(300, 700), (1000, 300), (333, 1111), (2000, 40)])
def test_pil_images_in_blocks(kind: type, size: tuple[int, int], small_blocks: None) -> None:
    array = noise(*size)
    image = Image.fromarray(array)
    with pytest.raises(ValueError, match="contiguous"):
        image.__arrow_c_array__()
    assert np.array_equal(frames(kind, image), frames(kind, array, input_data_format="channels_last"))


def test_nearest_and_blocks(small_blocks: None) -> None:
    array = noise(300, 400)
    expected = frames(SmolVLMImageProcessorPil, array, resample=0)
    assert np.array_equal(frames(SmolVLMImageProcessorPil, Image.fromarray(array), resample=0), expected)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(5, 90),
    st.sampled_from(["view", "flipped", "mirrored", "step", "planes", "rgbx", "fortran", "grey"]),
)
def test_arrays_of_any_strides(height: int, width: int, memory: str) -> None:
    array = noise(height, width)
    room = noise(2 * height + 3, 2 * width + 3, 4)
    odd: dict[str, Any] = {
        "view": room[1 : 1 + height, 2 : 2 + width, :3],
        "flipped": array[::-1],
        "mirrored": array[:, ::-1],
        "step": room[: 2 * height : 2, : 2 * width : 2, 1:],
        "planes": np.ascontiguousarray(array.transpose(2, 0, 1)).transpose(1, 2, 0),
        "rgbx": room[:height, :width, :3],
        "fortran": np.asfortranarray(array),
        "grey": np.broadcast_to(array[..., :1], array.shape),
    }
    picture = odd[memory]
    expected = frames(SmolVLMImageProcessor, picture.copy(order="C"), input_data_format="channels_last")
    assert np.array_equal(frames(SmolVLMImageProcessor, picture, input_data_format="channels_last"), expected)


def test_tensors() -> None:
    array = noise(80, 130)
    expected = frames(SmolVLMImageProcessor, array)
    tensor = torch.from_numpy(array)
    for picture in (tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1).contiguous()):
        assert np.array_equal(frames(SmolVLMImageProcessor, picture), expected)


def test_the_picture_is_not_changed() -> None:
    array = noise(80, 130)
    image, kept = Image.fromarray(array), array.copy()
    for picture in (array, image):
        frames(SmolVLMImageProcessor, picture)
    assert np.array_equal(array, kept)
    assert np.array_equal(np.asarray(image), kept)
    image.putpixel((0, 0), (1, 2, 3))
    assert image.getpixel((0, 0)) == (1, 2, 3)


def test_a_picture_that_breaks_while_it_is_read(small_blocks: None) -> None:
    image = Image.fromarray(noise(900, 300))

    class Breaks(Image.Image):
        def crop(self, box: Any = None) -> Any:
            raise OSError("no more rows")

    image.__class__ = Breaks
    with pytest.raises(ValueError, match=r"rows of the picture cannot be read.*no more rows"):
        frames(SmolVLMImageProcessor, image)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_not_about_the_picture_is_raised_as_it_is(small_blocks: None, error: type[BaseException]) -> None:
    image = Image.fromarray(noise(900, 300))

    class Ends(Image.Image):
        def crop(self, box: Any = None) -> Any:
            raise error("now")

    image.__class__ = Ends
    with pytest.raises(error, match="now"):
        frames(SmolVLMImageProcessor, image)


@pytest.mark.parametrize("kernels", kernel_names())
@pytest.mark.parametrize("repeated", [(1, 2, 3), (1, 1, 3)], ids=["one row", "one pixel"])
def test_an_array_that_repeats_its_values_without_end_is_a_memory_error(
    kernels: str, repeated: tuple[int, int, int]
) -> None:
    sizes = ImageSizes(longest_edge=64, exact=None, tile=64, split=False)
    table = np.zeros((3, 256), np.float32)
    settings = ImageSettings(sizes, resample=2, arithmetic="torch", table=table, formula=[], kernels=kernels)
    picture = np.broadcast_to(np.zeros(repeated, np.uint8), (1 << 55, 2, 3))
    with pytest.raises(MemoryError):
        preprocess([picture], [0], np.zeros((1, 3, 64, 64), np.float32), settings)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_broken_object_names_its_place(kind: type) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(60, 60)).save(buffer, "JPEG")
    broken = Image.open(io.BytesIO(buffer.getvalue()[:-400]))
    with pytest.raises(OSError, match=r"image 1: PIL image .* cannot be decoded"):
        kind(**SMALL)([Image.fromarray(noise(9, 9)), broken])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_a_large_picture() -> None:
    """At most 32 MB above the frames and the mask for 4032×3024, which is 37 MB itself."""
    program = (
        "import re, sys; from PIL import Image; from faster_smolvlm import SmolVLMImageProcessor as P\n"
        "def status(key): return int(re.search(key + r':\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "p = P(size={'longest_edge': 2048}, max_image_size={'longest_edge': 512})\n"
        "p(Image.new('RGB', (64, 64)), do_image_splitting=False, return_tensors='np')\n"
        "image = Image.effect_noise((4032, 3024), 50).convert('RGB')\n"
        "open('/proc/self/clear_refs', 'w').write('5'); before = status('VmRSS')\n"
        "f = p(image, return_tensors='np')\n"
        "print(status('VmHWM') - before - sum(a.nbytes for a in f.values()))"
    )
    environment = {**os.environ, "FASTER_SMOLVLM_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert int(done.stdout) <= 32e6
