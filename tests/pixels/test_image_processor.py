"""Both image processors against Transformers' of the same name. Ids are those of the project's parity checklist."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm.media import MediaDecodeError
from PIL import Image

from tests.helpers.image_processors import REAL, SMALL, both, compare, compare_error, noise

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    "file", ["photo_astronaut.png", "photo_cats_chelsea.png", "photo_coffee.png", "photo_rocket.jpg"]
)
def test_photos_at_real_size_i01_to_i05(data_dir: Path, name: str, file: str) -> None:
    with Image.open(data_dir / "images" / file) as image:
        image.load()
        compare(name, image, settings=REAL)


def test_every_picture_at_real_size(data_dir: Path, name: str) -> None:
    files = [path for path in sorted((data_dir / "images").iterdir()) if path.suffix != ".md"]
    assert len(files) > 30
    reference, processor = both(name, **REAL)
    for path in files:
        with Image.open(path) as image:
            image.load()
            theirs = reference(image, return_tensors="np", return_row_col_info=True)
            ours = processor(image, return_tensors="np", return_row_col_info=True)
        assert ours["rows"] == theirs["rows"], path.name
        assert ours["cols"] == theirs["cols"], path.name
        assert ours["pixel_values"].tobytes() == theirs["pixel_values"].tobytes(), path.name


def modes() -> dict[str, Image.Image]:
    rgb = Image.fromarray(noise(60, 90))
    alpha = Image.fromarray(noise(60, 90, 4), "RGBA")
    palette = rgb.quantize(32)
    transparent = palette.copy()
    transparent.info["transparency"] = 3
    grey16 = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (60, 90)).astype(np.uint16))
    plain = {mode: rgb.convert(mode) for mode in ("L", "1", "CMYK", "YCbCr", "HSV", "LAB", "I", "F")}
    return {**plain, "RGBA": alpha, "LA": alpha.convert("LA"), "P": palette, "P+trns": transparent, "I;16": grey16}


@pytest.mark.parametrize("mode", list(modes()))
def test_modes_i06_i07_i09_i10(name: str, mode: str) -> None:
    compare(name, modes()[mode])


def test_paths_drop_alpha_i08(data_dir: Path, name: str) -> None:
    compare(name, str(data_dir / "images" / "rgba_logo.png"))


def test_array_layouts_i11_i12(name: str) -> None:
    array = noise(70, 110)
    first = compare(name, array)["pixel_values"]
    for other in (array.transpose(2, 0, 1), torch.from_numpy(array), torch.from_numpy(array).permute(2, 0, 1)):
        assert torch.equal(compare(name, other)["pixel_values"], first)
    assert torch.equal(compare(name, array, input_data_format="channels_last")["pixel_values"], first)
    compare(name, noise(70, 110, 1))
    compare(name, noise(70, 110, 1).transpose(2, 0, 1))
    compare(name, noise(3, 50))  # ambiguous: both read the rows as channels


def test_rgba_array_i13(name: str) -> None:
    compare(name, noise(40, 60, 4))
    compare(name, noise(40, 60, 4).astype(np.float32) / 255, atol=2e-6, do_rescale=False)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 2), (2, 2, 3, 8, 8)])
def test_wrong_shapes_i14_i15_i36(name: str, shape: tuple[int, ...]) -> None:
    error = compare_error(name, np.zeros(shape, np.uint8))
    assert isinstance(error, ValueError)


def test_floats_i16_to_i19(name: str) -> None:
    unit = noise(50, 80).astype(np.float32) / 255
    pil = name.endswith("Pil")
    compare(name, unit, do_rescale=False, atol=0 if pil else 2e-6)
    compare(name, unit.astype(np.float64), do_rescale=False, atol=0 if pil else 2e-6)
    with pytest.warns(UserWarning, match="rescaled again"):
        compare(name, unit, atol=0 if pil else 2e-6)
    fractional = noise(50, 80).astype(np.float32) * np.float32(0.973)
    if pil:
        assert isinstance(compare_error(name, fractional), ValueError)
        compare(name, noise(50, 80).astype(np.float32))
    else:
        compare(name, fractional, atol=5e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16])
def test_integers_i20(name: str, dtype: type) -> None:
    image = noise(50, 80).astype(dtype)
    if name.endswith("Pil"):
        compare(name, image)
        return
    # Resized in float32 and rounded: sums that end within a rounding error of one half may round to either side.
    reference, processor = both(name, **SMALL)
    theirs, ours = (side(image, return_tensors="np")["pixel_values"] for side in (reference, processor))
    off = np.abs(theirs - ours)
    assert off.max() <= 1.01 / 127.5
    assert (off > 0).mean() < 1e-4


def test_half_precision_i21(name: str) -> None:
    half = torch.from_numpy(noise(50, 80)).to(torch.float16)
    bfloat16 = torch.from_numpy(noise(50, 80)).to(torch.bfloat16)
    if name.endswith("Pil"):
        compare(name, half)
        assert isinstance(compare_error(name, bfloat16), TypeError)
    else:
        compare(name, half, atol=2e-3)
        compare(name, bfloat16, atol=1e-2)


def test_steps_that_are_left_out_i22_to_i25(name: str) -> None:
    assert compare(name, noise(90, 140), do_image_splitting=False)["rows"] == [[0]]
    assert compare(name, noise(64, 64), do_resize=False)["pixel_values"].shape[1] == 1
    ours = compare(name, noise(50, 100), do_resize=False)
    assert (ours["rows"], ours["cols"]) == ([[1]], [[2]])
    for steps in ({"do_rescale": False}, {"do_normalize": False}, {"do_rescale": False, "do_normalize": False}):
        for do_pad in (True, False):
            for tensors in ("pt", "np", None):
                compare(name, noise(90, 140), do_pad=do_pad, return_tensors=tensors, **steps)
    compare(name, [[noise(64, 64)], [noise(64, 64), noise(64, 64)]], do_rescale=False, do_normalize=False)


@pytest.mark.parametrize("resample", range(6))
def test_filters_i26(name: str, resample: int) -> None:
    if resample > 3 and not name.endswith("Pil"):
        assert isinstance(compare_error(name, noise(50, 80), resample=resample), NotImplementedError)
    else:
        compare(name, noise(50, 80), resample=resample)


def test_sizes_i27_i28(name: str) -> None:
    compare(name, noise(50, 80), size={"height": 300, "width": 200})
    compare(name, noise(50, 80), size=128)
    compare(name, noise(50, 80), size=(100, 200))
    assert isinstance(compare_error(name, noise(50, 80), size={"shortest_edge": 100}), ValueError)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 100), (100, 1), (10000, 1), (1, 10000), (2, 4096), (4096, 3), (3, 2), (31, 33), (128, 127)]
)
def test_extreme_sizes_i29_to_i31(name: str, size: tuple[int, int]) -> None:
    compare(name, Image.fromarray(noise(*size)))


@pytest.mark.parametrize(("edge", "tile"), [(5000, 512), (1536, 384), (1456, 364)])
def test_other_checkpoints_i32(name: str, edge: int, tile: int) -> None:
    settings = {"size": {"longest_edge": edge}, "max_image_size": {"longest_edge": tile}}
    compare(name, Image.fromarray(noise(301, 517)), settings=settings)


def test_nesting_i33_to_i36(name: str) -> None:
    a, b, c = (Image.fromarray(noise(*size)) for size in ((60, 60), (30, 120), (64, 50)))
    compare(name, [a, b])
    ours = compare(name, [[a], [b, c]])
    assert not ours["pixel_attention_mask"][0, -1].any()
    assert not ours["pixel_values"][0, -1].any()
    compare(name, [[], [a]])
    compare(name, (a, noise(40, 40)))
    compare(name, np.stack([noise(40, 50), noise(40, 50, seed=1)]))
    compare(name, [np.stack([noise(40, 50), noise(40, 50, seed=1)]), noise(30, 30)[None]])


@pytest.mark.parametrize("images", [[], [[]], [[], []]])
def test_no_pictures_i37(name: str, images: Any) -> None:
    with pytest.raises(ValueError, match="No images"):
        both(name)[1](images)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (3, 0, 0)])
def test_no_pixels(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no pixels"):
        both(name)[1](np.zeros(shape, np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(name: str, value: float) -> None:
    image = noise(20, 20).astype(np.float32)
    image[3, 4, 1] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        both(name)[1](image)


@pytest.mark.parametrize("dtype", [np.uint16, np.complex64, object])
def test_unusable_types(name: str, dtype: type) -> None:
    with pytest.raises(ValueError, match="not supported"):
        both(name)[1](np.zeros((20, 20, 3), dtype))


def test_paths_i38(data_dir: Path, name: str) -> None:
    images = data_dir / "images"
    compare(name, str(images / "photo_coffee.png"))
    compare(name, str(images / "photo_rocket.jpg"))
    compare(name, [str(images / "progressive_cat.jpg"), Image.fromarray(noise(40, 40))])
    ours = both(name, **SMALL)[1]
    path = images / "photo_rocket.jpg"
    expected = ours(str(path), return_tensors="np")["pixel_values"]
    assert np.array_equal(ours(path, return_tensors="np")["pixel_values"], expected)
    assert np.array_equal(ours(path.read_bytes(), return_tensors="np")["pixel_values"], expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_base64_i39(name: str, kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(40, 60)).save(buffer, kind)
    text = base64.b64encode(buffer.getvalue()).decode()
    compare(name, text)
    compare(name, f"data:image/{kind.lower()};base64,{text}")


def test_missing_path_i40(name: str) -> None:
    with pytest.raises(ValueError, match="no existing file"):
        both(name)[1]("/no/such/picture.png")


def test_truncated_i41(data_dir: Path, name: str) -> None:
    path = data_dir / "bad_images" / "made_jpeg_half.jpg"
    error = compare_error(name, str(path))
    assert isinstance(error, MediaDecodeError)
    assert "made_jpeg_half.jpg" in str(error)
    with Image.open(path) as image:
        assert isinstance(compare_error(name, image), OSError)


def test_orientation_i42(data_dir: Path, name: str) -> None:
    path = data_dir / "images" / "exif_orient6_landscape.jpg"
    upright = compare(name, str(path))
    with Image.open(path) as image:
        as_stored = compare(name, image)
    assert (upright["rows"], upright["cols"]) == (as_stored["cols"], as_stored["rows"])
