"""Both image processors against Transformers' of the same name: arguments, outputs, files, single steps, limits."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faster_smolvlm
import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm.media import MediaError, MediaLimitError, MediaPolicy

from tests.helpers.image_processors import REAL, SMALL, assert_same, both, compare, compare_error, noise

pytestmark = pytest.mark.parity


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


@pytest.mark.parametrize("size", ["256m", "2.2b"])
def test_files_i47(name: str, size: str, config_dir: Callable[[str], Path], tmp_path: Path) -> None:
    for settings in ({}, SMALL, {"do_pad": False, "extra": [1, 2]}, {"size": 100, "image_mean": None, "resample": 3}):
        reference, processor = both(name, **settings)
        assert processor.to_dict() == reference.to_dict()
        assert processor.to_json_string() == reference.to_json_string()
    reference = getattr(transformers, name).from_pretrained(config_dir(size))
    processor = getattr(faster_smolvlm, name).from_pretrained(config_dir(size), return_unused_kwargs=True, foo=1)
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
