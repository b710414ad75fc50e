"""Clips given as pictures or arrays: every mode and number of channels becomes the RGB of a single picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import SmolVLMVideoProcessor
from faster_smolvlm.media import MediaDecodeError, MediaLimitError, MediaPolicy
from faster_smolvlm.media.video import load_video
from PIL import Image

RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8))
ALPHA = Image.fromarray(RNG.integers(0, 256, (48, 64), dtype=np.uint8))
GREY = np.asarray(RGB.convert("L"))


def _with_alpha() -> Image.Image:
    image = RGB.convert("RGBA")
    image.putalpha(ALPHA)
    return image


def _with_transparent_colour() -> Image.Image:
    image = RGB.convert("P")
    image.info["transparency"] = 3
    return image


FRAMES = {mode: RGB.convert(mode) for mode in ("P", "1", "L", "CMYK", "YCbCr", "HSV", "LAB", "RGBX")} | {
    "RGBA": _with_alpha(),
    "LA": _with_alpha().convert("LA"),
    "PA": _with_alpha().convert("PA"),
    "P with a transparent colour": _with_transparent_colour(),
}


@pytest.fixture(scope="module")
def processor() -> SmolVLMVideoProcessor:
    return SmolVLMVideoProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_sample_frames=False)


def on_white(image: Image.Image) -> Image.Image:
    """The definition: what is transparent shows white."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def pixels(processor: SmolVLMVideoProcessor, clip: Any, **settings: Any) -> np.ndarray:
    found: np.ndarray = processor(clip, return_tensors="np", **settings)["pixel_values"]
    return found


@pytest.mark.parametrize("mode", FRAMES)
def test_frames_of_any_mode_are_rgb(processor: SmolVLMVideoProcessor, mode: str) -> None:
    frame = FRAMES[mode]
    expected = on_white(frame)
    np.testing.assert_array_equal(pixels(processor, [[frame, frame]]), pixels(processor, [[expected, expected]]))
    np.testing.assert_array_equal(pixels(processor, frame), pixels(processor, expected))
    found, metadata = load_video([frame, frame])
    np.testing.assert_array_equal(found, np.stack([np.asarray(expected)] * 2))
    assert (metadata.height, metadata.width) == (48, 64)


def test_frames_of_several_modes_and_kinds(processor: SmolVLMVideoProcessor, tmp_path: Path) -> None:
    grey = np.repeat(GREY[..., None], 3, axis=-1)
    RGB.save(tmp_path / "frame.png")
    clip = [RGB, FRAMES["P"], FRAMES["L"], np.asarray(RGB), GREY, torch.tensor(np.asarray(RGB)).permute(2, 0, 1)]
    expected = [RGB, on_white(FRAMES["P"]), Image.fromarray(grey), RGB, Image.fromarray(grey), RGB]
    np.testing.assert_array_equal(pixels(processor, [clip]), pixels(processor, [expected]))
    np.testing.assert_array_equal(
        pixels(processor, [[[str(tmp_path / "frame.png"), FRAMES["RGBA"]]]]),
        pixels(processor, [[RGB, on_white(FRAMES["RGBA"])]]),
    )


def test_such_frames_can_be_sampled(processor: SmolVLMVideoProcessor) -> None:
    clip = [FRAMES["P"]] * 20
    metadata = {"total_num_frames": 20, "fps": 10, "duration": 2.0}
    settings = {"do_sample_frames": True, "num_frames": 4, "fps": 1, "video_metadata": metadata}
    expected = [on_white(FRAMES["P"])] * 20
    np.testing.assert_array_equal(pixels(processor, [clip], **settings), pixels(processor, [expected], **settings))


@pytest.mark.parametrize("clip", [np.stack([GREY, GREY]), [GREY, GREY], [torch.tensor(GREY)] * 2], ids=type)
def test_grey_arrays_need_no_channels(processor: SmolVLMVideoProcessor, clip: Any) -> None:
    expected = pixels(processor, [[RGB.convert("L").convert("RGB")] * 2])
    np.testing.assert_array_equal(pixels(processor, clip), expected)


@pytest.mark.parametrize("first", [False, True])
def test_alpha_of_arrays_is_blended_onto_white(processor: SmolVLMVideoProcessor, first: bool) -> None:
    rgba = np.asarray(FRAMES["RGBA"])
    clip = np.stack([rgba, rgba])
    layout = {"input_data_format": "channels_first" if first else "channels_last"}
    found = pixels(processor, clip.transpose(0, 3, 1, 2) if first else clip, **layout)
    expected = pixels(processor, [[on_white(FRAMES["RGBA"])] * 2])
    # a picture is rounded after blending and clipped after each resizing, an array is not
    assert np.abs(found - expected).mean() < 0.01
    assert np.abs(found - expected).max() < 0.15
    opaque = np.asarray(RGB.convert("RGBA"))
    found = pixels(processor, np.stack([opaque] * 2), input_data_format="channels_last")
    np.testing.assert_array_equal(found, pixels(processor, [[RGB, RGB]]))


def test_two_channels_are_refused(processor: SmolVLMVideoProcessor) -> None:
    with pytest.raises(ValueError, match=re.escape("(2, 48, 64, 2) has neither 1 nor 3 channels; for 4 (RGBA")):
        pixels(processor, np.zeros((2, 48, 64, 2), np.uint8))


def test_deep_greys_are_scaled_if_their_depth_is_known(processor: SmolVLMVideoProcessor) -> None:
    values = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    deep = Image.fromarray(values)
    scaled = Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    np.testing.assert_array_equal(pixels(processor, [[deep, deep]]), pixels(processor, [[scaled, scaled]]))
    for mode in ("F", "I"):
        with pytest.raises(MediaDecodeError, match=f"frame 1: the PIL image holds .*mode {mode}"):
            load_video([RGB, RGB.convert(mode)])


def test_sizes_and_limits_are_checked(processor: SmolVLMVideoProcessor) -> None:
    with pytest.raises(ValueError, match=r"one size, got .height, width, channels. \(20, 30, 3\), \(48, 64, 3\)"):
        pixels(processor, [[RGB, Image.new("P", (30, 20))]])
    with pytest.raises(MediaLimitError, match=r"frame 1: .*max_pixels"):
        load_video([RGB, Image.new("1", (200, 200))], policy=MediaPolicy(max_pixels=20_000))
