"""Greys of more than 8 bits: scaled if the file says what is white, refused if not, however they are handed over."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import SmolVLM, SmolVLMImageProcessor
from faster_smolvlm.media import MediaDecodeError, load_image
from PIL import Image

from tests.helpers.media_sources import ENCODED

WIDTH, HEIGHT = 64, 48
RAMP = np.linspace(0, 1, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
EIGHT = np.floor(RAMP * 65535 / 257 + 0.5).astype(np.uint8)
SMALL: dict[str, Any] = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}


def ramp(white: int, dtype: str) -> np.ndarray:
    return np.round(RAMP * white).astype(dtype)


def saved(values: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


def tiff(data: bytes, bits: int, sample_format: int, order: str = "<") -> bytes:
    """A TIFF of one uncompressed grey strip."""
    byte_order = "little" if order == "<" else "big"
    tags = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: 1, 273: 200, 277: 1, 278: HEIGHT, 279: len(data)}
    tags[339] = sample_format
    number = lambda value, size: value.to_bytes(size, byte_order)  # noqa: E731
    entries = b"".join(number(tag, 2) + number(4, 2) + number(1, 4) + number(value, 4) for tag, value in tags.items())
    start = (b"II" if order == "<" else b"MM") + number(42, 2) + number(8, 4) + number(len(tags), 2)
    return (start + entries).ljust(200, b"\0") + data


def twelve_bits() -> bytes:
    values = ramp(4095, "u2").ravel()
    pairs = np.stack([values[::2] >> 4, (values[::2] & 15) << 4 | values[1::2] >> 8, values[1::2] & 255], 1)
    return tiff(pairs.astype(np.uint8).tobytes(), 12, 1)


SCALED: dict[str, Callable[[], bytes]] = {
    "PGM": lambda: b"P5\n64 48\n65535\n" + ramp(65535, ">u2").tobytes(),
    "PGM of 10 bits": lambda: b"P5\n64 48\n1023\n" + ramp(1023, ">u2").tobytes(),
    "plain PGM": lambda: b"P2\n64 48\n4095\n" + b" ".join(b"%d" % value for value in ramp(4095, "u2").ravel()),
    "PNG": lambda: saved(ramp(65535, "u2"), "PNG"),
    "JPEG2000": lambda: saved(ramp(65535, "u2"), "JPEG2000"),
    "TIFF": lambda: saved(ramp(65535, "u2"), "TIFF"),
    "TIFF, big-endian": lambda: tiff(ramp(65535, ">u2").tobytes(), 16, 1, ">"),
    "TIFF of 12 bits": twelve_bits,
    "TIFF of 32 bits": lambda: tiff(ramp(2**32 - 1, "<u4").tobytes(), 32, 1),
}
REFUSED: dict[str, Callable[[], bytes]] = {
    "float TIFF": lambda: saved(RAMP.astype(np.float32), "TIFF"),
    "PFM": lambda: b"Pf\n64 48\n-1.0\n" + RAMP.astype("<f4").tobytes(),
    "TIFF, 16 bits with a sign": lambda: tiff(ramp(32767, "<i2").tobytes(), 16, 2),
    "TIFF, 32 bits with a sign": lambda: tiff(ramp(2**31 - 1, "<i4").tobytes(), 32, 2),
}


@pytest.mark.parametrize("name", SCALED)
def test_scaled_to_eight_bits(name: str) -> None:
    picture = np.asarray(load_image(SCALED[name]()))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(picture.astype(int) - EIGHT[..., None]).max() <= 1
    assert picture.min() == 0
    assert picture.max() == 255
    if "bits" not in name and "plain" not in name:
        np.testing.assert_array_equal(picture[..., 0], EIGHT)


def test_the_same_file_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    path.write_bytes(SCALED["PGM"]())
    expected = np.repeat(EIGHT[..., None], 3, 2)
    for make in ENCODED.values():
        np.testing.assert_array_equal(load_image(make(path)), expected)
    processor = SmolVLMImageProcessor(**SMALL)
    by_path, by_pixels = (processor(given, return_tensors="np")["pixel_values"] for given in (str(path), expected))
    np.testing.assert_array_equal(by_path, by_pixels)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    with pytest.raises(MediaDecodeError, match="whose black and white are not known: scale them") as error:
        load_image(REFUSED[name]())
    assert "convert('RGB')" in str(error.value)


def test_objects_of_pillow_are_scaled_in_questions(tmp_path: Path) -> None:
    vlm = SmolVLM.from_pretrained("demo")
    for name, make in SCALED.items():
        data = make()
        whole, opened = (
            vlm.chat(vlm_message(picture), max_new_tokens=4).text for picture in (data, Image.open(io.BytesIO(data)))
        )
        assert whole == opened, name
    for name, make in REFUSED.items():
        with pytest.raises(MediaDecodeError, match="whose black and white are not known"):
            vlm.chat(vlm_message(Image.open(io.BytesIO(make()))), max_new_tokens=1)
        assert name
    with pytest.raises(MediaDecodeError, match="PIL image holds integer greys"):
        vlm.chat(vlm_message(Image.new("I", (8, 8))), max_new_tokens=1)


def vlm_message(picture: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]}]


def test_the_processor_clips_objects_of_pillow_as_transformers_does_and_says_so() -> None:
    grey = Image.fromarray(ramp(65535, "u2"))
    processor = SmolVLMImageProcessor(**SMALL)
    with pytest.warns(UserWarning, match="mode I;16 are clipped to 0..255, as Transformers does"):
        clipped = processor(grey, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(clipped, processor(grey.convert("RGB"), return_tensors="np")["pixel_values"])
