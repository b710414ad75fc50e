"""What is wrong with a picture is said by name, and every error has a type, whatever a reader of Pillow raises."""

from __future__ import annotations

import io
import re
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from faster_smolvlm import SmolVLMImageProcessor
from faster_smolvlm.media import MediaDecodeError, MediaError, MediaLimitError, MediaPolicy, load_image
from PIL import Image, ImageFile

from benches import worst_pictures as worst

KINDS = {"JPEG": 400, "PNG": 20, "GIF": 8, "BMP": 30, "WEBP": 20, "TIFF": 6, "ICO": 12, "JPEG2000": 20, "AVIF": 40}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_in_its_header(kind: str) -> None:
    data = worst.saved(worst.noise(16, 16), kind)[: KINDS[kind]]
    with pytest.raises(
        MediaDecodeError, match=rf"{len(data)} bytes (begins as a|is a broken or truncated) {kind} file"
    ):
        load_image(data)


def test_a_format_that_is_not_allowed_is_named() -> None:
    data = worst.saved(worst.noise(16, 16), "TIFF")
    with pytest.raises(MediaDecodeError, match=r"is a TIFF file, which is not in an allowed format .*'TIFF'"):
        load_image(data, MediaPolicy.strict())


def test_an_empty_source(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    for source in (b"", tmp_path / "empty.jpg", io.BytesIO(), "data:image/png;base64,"):
        with pytest.raises(MediaError, match="empty"):
            load_image(source)


ERRORS = [
    struct.error("x"), IndexError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), SyntaxError("x"), RecursionError(),
    ZeroDivisionError(), AttributeError("x"), AssertionError(), OverflowError(), StopIteration(), EOFError(),
]  # fmt: skip


@pytest.mark.parametrize("raised", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_reader_raises(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    data = worst.saved(worst.noise(16, 16), "PNG")
    lazy = Image.open(io.BytesIO(data))

    def load(_: object) -> None:
        raise raised

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(MediaDecodeError, match="broken or truncated PNG file"):
        load_image(data)
    processor = SmolVLMImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    with pytest.raises(MediaDecodeError, match=r"image 1: .*cannot be decoded"):
        processor([np.zeros((4, 4, 3), np.uint8), lazy], return_tensors="np")


def test_memory_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(MediaLimitError, match="needs more memory than there is"):
        load_image(worst.saved(worst.noise(16, 16), "PNG"))


def test_pictures_opened_and_closed_by_the_caller() -> None:
    with Image.open(io.BytesIO(worst.saved(worst.noise(16, 16), "PNG"))) as closed:
        pass
    cut = Image.open(io.BytesIO(worst.saved(worst.noise(160, 160), "JPEG")[:3000]))
    for picture in (closed, cut):
        with pytest.raises(MediaDecodeError, match=r"PIL image .* cannot be decoded"):
            load_image(picture)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "ICO", "PPM", "QOI", "SGI", "TGA", "PCX"]
)
def test_changed_bytes(kind: str) -> None:
    """A picture, or an error with a type and of bounded length; nothing else."""
    generator = np.random.default_rng(17)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    options = {"exif": exif.tobytes()} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    good = worst.saved(worst.noise(24, 20), kind, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            data = bytearray(good)
            for at in generator.integers(0, min(len(data), 300), generator.integers(1, 5)):
                data[at] = generator.integers(0, 256)
            if generator.integers(3) == 0:
                del data[generator.integers(1, len(data)) :]
            message = ""
            try:
                assert load_image(bytes(data), MediaPolicy(max_pixels=1_000_000)).mode == "RGB"
            except MediaError as error:
                message = str(error)
            assert len(message) < 400
            assert not re.search("0x[0-9a-f]{6}", message)
