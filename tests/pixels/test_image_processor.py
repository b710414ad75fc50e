"""Both image processors against Transformers' of the same name. Ids are those of the project's parity checklist."""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import faster_smolvlm
import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm.media import MediaDecodeError, MediaError, MediaLimitError, MediaPolicy
from PIL import Image

pytestmark = pytest.mark.parity

NAMES = ("SmolVLMImageProcessor", "SmolVLMImageProcessorPil")
SMALL = {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}
REAL = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


@pytest.mark.parametrize("tensors", [None, "np", "pt"])
def test_return_types_i43(name: str, tensors: str | None) -> None:
    compare(name, noise(50, 80), return_tensors=tensors)
    compare_error(name, noise(50, 80), return_tensors="tf")


def test_no_padding_i44(name: str) -> None:
    for tensors in ("pt", None):
        compare(name, noise(50, 80), do_pad=False, return_tensors=tensors)
    compare(name, [[noise(50, 80)], [noise(20, 90), noise(9, 9)]], do_pad=False, return_tensors=None)
    with pytest.raises(ValueError, match="do_pad=True"):
        both(name, **SMALL)[1]([[noise(50, 80)], [noise(20, 90), noise(9, 9)]], do_pad=False, return_tensors="pt")


@pytest.mark.parametrize(
    "call",
    [
        {"do_resize": "yes"},
        {"unknown": 1},
        {"size": "large"},
        {"image_mean": "x"},
        {"max_image_size": None},
        {"max_image_size": 5},
        {"do_image_splitting": 1},
        {"size": {"longest_edge": 5, "height": 3}},
        {"image_mean": (0.5, 0.5)},
    ],
)
def test_wrong_arguments_i45(name: str, call: dict[str, Any]) -> None:
    compare_error(name, noise(20, 20), **call)


@pytest.mark.parametrize("call", [{"resample": 9}, {"input_data_format": "HWC"}, {"return_tensors": "mlx"}])
def test_unknown_choices(name: str, call: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one of"):
        both(name, **SMALL)[1](noise(20, 20), **call)


def test_other_statistics_i46(name: str) -> None:
    compare(name, noise(50, 80), image_mean=[0.48, 0.46, 0.41], image_std=(0.27, 0.26, 0.28), atol=1e-6)
    compare(name, noise(50, 80), rescale_factor=1 / 127, atol=1e-6)
    compare(name, noise(50, 80), image_mean=0.4, image_std=0.3, atol=1e-6)


def test_files_i47(name: str, data_dir: Path, tmp_path: Path) -> None:
    for settings in ({}, SMALL, {"do_pad": False, "extra": [1, 2]}, {"size": 100, "image_mean": None, "resample": 3}):
        reference, processor = both(name, **settings)
        assert processor.to_dict() == reference.to_dict()
        assert processor.to_json_string() == reference.to_json_string()
    for folder in ("smolvlm2-256m-config", "smolvlm2-2.2b-config"):
        reference = getattr(transformers, name).from_pretrained(data_dir / folder)
        processor = getattr(faster_smolvlm, name).from_pretrained(data_dir / folder, return_unused_kwargs=True, foo=1)
        assert processor[1] == {"foo": 1}
        assert processor[0].to_json_string() == reference.to_json_string()
        (saved,) = processor[0].save_pretrained(tmp_path / name)
        reference.save_pretrained(tmp_path / "theirs")
        assert Path(saved).read_bytes() == (tmp_path / "theirs" / "preprocessor_config.json").read_bytes()
        again = getattr(faster_smolvlm, name).from_pretrained(tmp_path / name, do_image_splitting=False)
        assert again.do_image_splitting is False
        assert again.size == {"longest_edge": processor[0].size["longest_edge"]}
    nested = {"image_processor": {"size": {"longest_edge": 77}}}
    (tmp_path / name / "processor_config.json").write_text(json.dumps(nested))
    assert getattr(faster_smolvlm, name).from_pretrained(tmp_path / name).size.longest_edge == 77
    with pytest.raises(OSError, match=r"processor_config\.json"):
        getattr(faster_smolvlm, name).from_pretrained(tmp_path)


def test_number_of_patches_i48(name: str) -> None:
    for settings in (REAL, SMALL, {"size": {"longest_edge": 2000}, "max_image_size": {"longest_edge": 512}}):
        reference, processor = both(name, **settings)
        for height in (1, 59, 116, 511, 512, 513, 2048, 5000):
            for width in (1, 58, 116, 512, 999, 2049, 4097):
                expected = reference.get_number_of_image_patches(height, width)
                assert processor.get_number_of_image_patches(height, width) == expected
        assert processor.get_number_of_image_patches(9, 9, {"do_image_splitting": False}) == (0, 0, 0)


def test_alias_i49() -> None:
    with pytest.warns(FutureWarning, match="now called"):
        assert faster_smolvlm.SmolVLMImageProcessorFast is faster_smolvlm.SmolVLMImageProcessor


def test_changes_after_loading_take_effect(name: str) -> None:
    reference, processor = both(name, **SMALL)
    for side in (reference, processor):
        side.size = {"longest_edge": 128}
        side.do_image_splitting = False
    image = noise(50, 80)
    theirs, ours = (side(image, return_tensors="np") for side in (reference, processor))
    assert np.array_equal(ours["pixel_values"], theirs["pixel_values"])
    for clone in (pickle.loads(pickle.dumps(processor)), copy.deepcopy(processor)):
        assert clone.to_dict() == processor.to_dict()
        assert np.array_equal(clone(image, return_tensors="np")["pixel_values"], theirs["pixel_values"])


def test_single_steps(name: str) -> None:
    reference, processor = both(name, **SMALL)
    image: Any = noise(90, 150).transpose(2, 0, 1)
    if not name.endswith("Pil"):
        image = torch.from_numpy(np.ascontiguousarray(image))
    sizes = transformers.image_utils.SizeDict
    resized = reference.resize(image, sizes(longest_edge=256), resample=1)
    assert_same(resized, processor.resize(image, {"longest_edge": 256}, resample=1))
    raised = reference.resize_for_vision_encoder(resized, 64, resample=1)
    assert_same(raised, processor.resize_for_vision_encoder(resized, 64, resample=1))
    batch = raised if name.endswith("Pil") else raised[None]
    for theirs, ours in zip(
        reference.split_images(batch, {"longest_edge": 64}, 1),
        processor.split_images(batch, {"longest_edge": 64}, 1),
        strict=True,
    ):
        assert_same(theirs, ours)
    for theirs, ours in zip(reference.pad(image, (100, 160)), processor.pad(image, (100, 160)), strict=True):
        assert_same(theirs, ours)
    assert_same(reference.rescale(image, 0.1), processor.rescale(image, 0.1))
    floats = image.astype(np.float32) if name.endswith("Pil") else image.float()
    mean = std = [0.5, 0.4, 0.3]
    assert_same(reference.normalize(floats, mean, std), processor.normalize(floats, mean, std))
    with pytest.raises(ValueError, match="negative"):
        processor.pad(image, (10, 10))


def test_quirks_that_are_fixed(name: str, data_dir: Path) -> None:
    processor = both(name, **SMALL)[1]
    images = data_dir / "images"
    grey = processor(str(images / "png16_gray.png"), return_tensors="np")["pixel_values"]
    assert grey.min() >= -1
    assert grey.max() <= 1
    assert grey.std() > 0.05
    frames = processor(str(images / "anim_dispose.gif"), return_tensors="np", return_row_col_info=True)
    assert len(frames["rows"][0]) == 1
    for file in ("tiff_lzw_hopper.tif", "bmp_hopper.bmp"):
        assert processor(str(images / file), return_tensors="np")["pixel_values"].std() > 0.1


def test_limits_and_the_failing_picture(name: str, tmp_path: Path) -> None:
    processor = getattr(faster_smolvlm, name)(
        **SMALL, media_policy=MediaPolicy(max_pixels=1000, max_output_bytes=1 << 22)
    )
    with pytest.raises(MediaLimitError, match=r"image 1.*max_pixels"):
        processor([noise(10, 10), noise(100, 100)])
    with pytest.raises(MediaLimitError, match="max_output_bytes"):
        processor([[noise(9, 9)] * 9])
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(MediaError, match=r"image 1: image 0: .*bad\.png"):
        processor([[noise(9, 9)], [str(tmp_path / "bad.png")]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "media_policy" not in processor.to_dict()
