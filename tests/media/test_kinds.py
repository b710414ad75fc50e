"""What counts as a source, and how file objects are read."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm.media import (
    MediaDecodeError,
    MediaLimitError,
    MediaPolicy,
    MediaRefusedError,
    MediaTypeError,
    load_image,
)
from faster_smolvlm.media import kinds as media_kinds
from faster_smolvlm.media.kinds import is_array, is_file, is_frame, is_picture, is_source
from faster_smolvlm.media.nesting import count_videos, flatten_videos
from faster_smolvlm.media.video import VideoReader, load_video
from PIL import Image

from tests.helpers.media_sources import ENCODED, Pipe
from tests.helpers.video_clips import every_frame, pictures, write_clip

STRICT = MediaPolicy.strict()


@pytest.fixture
def png(tmp_path: Path) -> Path:
    Image.fromarray(pictures(1, 20, 30)[0]).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_every_value_is_of_one_kind(png: Path) -> None:
    frame = np.zeros((4, 5, 3), np.uint8)
    for name, make in ENCODED.items():
        source = make(png)
        assert is_source(source), name
        assert is_file(source) == (name in ("BytesIO", "open file", "zip member", "pipe")), name
        assert not is_picture(source), name
    for picture in (frame, torch.tensor(frame), Image.fromarray(frame)):
        assert is_picture(picture)
        assert is_frame(picture)
        assert not is_source(picture)
    assert is_array(frame)
    assert not is_frame(frame[None])
    for other in (None, 5, [], {}, object(), io.BytesIO, open):
        assert not is_source(other)
        assert not is_picture(other)


def test_nothing_is_imported_for_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    image, tensor = Image.new("L", (2, 2)), torch.zeros(2)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "PIL.Image")
    assert not media_kinds.is_picture(image)
    assert not media_kinds.is_picture(tensor)
    assert "torch" not in sys.modules
    assert "PIL.Image" not in sys.modules


def test_a_file_object_is_read_from_its_beginning(png: Path, tmp_path: Path) -> None:
    expected = np.asarray(Image.open(png))
    with png.open("rb") as file:
        for _ in range(2):
            np.testing.assert_array_equal(load_image(file), expected)
    clip = write_clip(tmp_path / "clip.mp4", frames=3)
    opened = io.BytesIO(clip.read_bytes())
    opened.seek(100)
    for _ in range(2):
        np.testing.assert_array_equal(load_video(opened)[0], np.stack(every_frame(clip)))


def test_bytes_and_open_files_are_no_paths(png: Path) -> None:
    """A policy without files refuses paths, and reads what the caller has opened or holds in memory."""
    for name, make in ENCODED.items():
        if name in ("str", "PathLike", "row with a path"):
            for load in (load_image, load_video):
                with pytest.raises(MediaRefusedError, match="allow_files"):
                    load(make(png), policy=STRICT)
        else:
            assert load_image(make(png), STRICT).size == (30, 20)


class Endless:
    """Gives zeros, and counts them."""

    given = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        self.given += size
        return bytes(size)


@pytest.mark.parametrize("load", [load_image, load_video])
def test_file_objects_that_cannot_be_used(load: Any, png: Path, tmp_path: Path) -> None:
    endless = Endless()
    with pytest.raises(MediaLimitError, match="max_bytes"):
        load(endless, policy=MediaPolicy(max_bytes=3_000_000))
    assert endless.given == 3_000_001
    with pytest.raises(MediaLimitError, match="max_bytes"):
        load(Pipe(png.read_bytes()), policy=MediaPolicy(max_bytes=20))
    for text in (io.StringIO(str(png)), io.StringIO(f"http://127.0.0.1/{png}")):  # never taken for a path or a URL
        with pytest.raises(MediaTypeError, match="'rb'"):
            load(text)
    closed = png.open("rb")
    closed.close()
    with (tmp_path / "new").open("wb") as write_only:
        for file in (closed, write_only):
            with pytest.raises(MediaDecodeError, match="file object cannot be read"):
                load(file)
    with pytest.raises(MediaDecodeError):
        load(io.BytesIO())


def test_paths_of_bytes(png: Path) -> None:
    class BytesPath:
        def __fspath__(self) -> bytes:
            return os.fsencode(png)

    assert load_image(BytesPath()).size == (30, 20)


def test_a_reader_takes_sources_only() -> None:
    for other in (np.zeros((2, 4, 5, 3), np.uint8), None, 5):
        with pytest.raises(MediaTypeError, match="expected a path, http"):
            VideoReader(other)  # type: ignore[arg-type]


FRAME = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("videos", "shapes"),
    [
        (bytearray(b"x"), [None]),
        (memoryview(b"x"), [None]),
        ([bytearray(b"x"), io.BytesIO(b"x")], [None, None]),
        ([[], ["a.mp4"]], [None]),
        ([[["0.png"], "a.mp4"]], [1, None]),
        ([[[b"0", b"1"]], [[Path("0.png")], [io.BytesIO()]]], [2, 1, 1]),
        ([[], [["0.png", "1.png"]]], [2]),
        (FRAME, [1]),
        ([FRAME, FRAME], [2]),
        ([[Image.new("L", (5, 4))], torch.zeros(3, 4, 5, 3)], [1, 3]),
        (np.zeros((2, 3, 4, 5, 3)), [3, 3]),
    ],
)
def test_clips_are_counted_as_they_are_read(videos: Any, shapes: list[int | None]) -> None:
    """None stands for a source; a number for how many frames a clip has, as an array or as sources."""
    clips = flatten_videos(videos)
    assert [None if is_source(clip) else len(clip) for clip in clips] == shapes
    assert count_videos(videos) == len(shapes)


def test_frames_of_a_decoded_clip(tmp_path: Path) -> None:
    frames = pictures(6, 8, 10)
    for clip in (frames, list(frames), torch.tensor(frames)):
        found, metadata = load_video(clip, num_frames=3)
        np.testing.assert_array_equal(found, frames[[0, 2, 4]])
        assert (metadata.total_num_frames, metadata.height, metadata.width) == (6, 8, 10)
    assert isinstance(load_video(torch.tensor(frames))[0], torch.Tensor)
    with pytest.raises(ValueError, match="frame rate"):
        load_video(frames, fps=1)
    with pytest.raises(ValueError, match="expected one video, got 2"):
        load_video([frames, frames])
    with pytest.raises(MediaLimitError, match="max_pixels"):
        load_video(frames, policy=MediaPolicy(max_pixels=79))
