"""Animated WebP: the frames are Pillow's, and the limits are those of every other clip."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import FrameSampling, MediaPolicy, SmolVLMVideoProcessor
from faster_smolvlm.media import MediaDecodeError, MediaLimitError
from faster_smolvlm.media.video import VideoReader, load_video
from faster_smolvlm.vlm.watch import frames_of_file
from PIL import Image, ImageSequence

from tests.helpers.video_clips import pictures

MILLISECONDS = [100, 200, 100, 0, 50, 300, 100]


def webp(frames: int = 7, height: int = 40, width: int = 50, alpha: bool = False, **options: Any) -> bytes:
    """An animation of noise, so that neither the encoder nor the decoder has an easy time."""
    images = [Image.fromarray(frame) for frame in pictures(frames, height, width)]
    if alpha:
        for index, image in enumerate(images):
            image.putalpha(255 - 30 * index)
    out = io.BytesIO()
    durations = (MILLISECONDS * frames)[:frames]
    images[0].save(out, "WEBP", save_all=True, append_images=images[1:], duration=durations, **options)
    return out.getvalue()


def of_pillow(data: bytes) -> list[np.ndarray]:
    return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]


@pytest.mark.parametrize("alpha", [False, True])
def test_frames_and_times(tmp_path: Any, alpha: bool) -> None:
    data = webp(alpha=alpha)
    path = tmp_path / "animation.webp"
    path.write_bytes(data)
    expected = of_pillow(data)
    assert len(expected) == 7
    for source in (data, path, str(path), io.BytesIO(data)):
        frames, metadata = load_video(source)
        np.testing.assert_array_equal(frames, np.stack(expected))
    assert dict(metadata) | {"frames_indices": None} == {
        "total_num_frames": 7,
        "fps": pytest.approx(7 / 0.85),
        "duration": pytest.approx(0.85),
        "width": 50,
        "height": 40,
        "video_backend": "pillow",
        "frames_indices": None,
    }
    frames, _ = load_video(data, sample_indices_fn=lambda metadata: np.array([6, 2, 2]))
    np.testing.assert_array_equal(frames, np.stack([expected[6], expected[2], expected[2]]))
    assert VideoReader(data).times == pytest.approx([0, 0.1, 0.3, 0.4, 0.4, 0.45, 0.75])
    assert load_video(data, sampling=FrameSampling.rate(4))[1].frames_indices.tolist() == [0, 1, 5, 6]


def test_pixels_equal_those_of_the_frames() -> None:
    data = webp(3)
    ours = SmolVLMVideoProcessor(size={"longest_edge": 128}, max_image_size={"longest_edge": 64})
    read, given = (ours(clip, return_tensors="np") for clip in (data, np.stack(of_pillow(data))))
    for name in given:
        np.testing.assert_array_equal(read[name], given[name])
    fast = ours(data, fast=True, return_tensors="np")["pixel_values"]
    assert 0 < np.abs(fast - given["pixel_values"]).mean() < 0.1


def test_watching() -> None:
    data = webp()
    seen = list(frames_of_file(data, every=0.2))
    expected = of_pillow(data)
    assert [round(seconds, 3) for seconds, _ in seen] == [0, 0.1, 0.4, 0.45]
    for (_, frame), index in zip(seen, (0, 1, 4, 5), strict=True):
        np.testing.assert_array_equal(frame, expected[index])


@pytest.mark.parametrize(
    ("limit", "value"),
    [("max_frames", 6), ("max_duration", 0.8), ("max_decoded_frames", 6), ("max_pixels", 1999), ("max_bytes", 100)],
)
def test_limits(limit: str, value: float) -> None:
    with pytest.raises(MediaLimitError, match=f"MediaPolicy.{limit}"):
        load_video(webp(), policy=MediaPolicy(**{limit: value}))


def test_time_limit() -> None:
    reader = VideoReader(webp(), policy=MediaPolicy(max_decode_seconds=1e-9))
    with pytest.raises(MediaLimitError, match="max_decode_seconds"):
        reader.read(lambda metadata: np.arange(7), lambda _, frame: frame)


def test_a_canvas_that_is_too_large_is_refused_by_its_header() -> None:
    data = bytearray(webp(2))
    data[24:30] = b"\xff" * 6  # 16,777,216 × 16,777,216
    with pytest.raises(MediaLimitError, match=r"MediaPolicy\.max_side"):
        load_video(bytes(data))


def test_what_is_no_animation() -> None:
    still = io.BytesIO()
    Image.new("RGB", (64, 48)).save(still, "WEBP")
    with pytest.raises(MediaDecodeError, match="still picture"):
        load_video(still.getvalue())
    data = webp()
    for cut in (12, 20, 31, 45, len(data) // 2, len(data) - 9):
        with pytest.raises(MediaDecodeError, match="bytes"):
            load_video(data[:cut])


def test_a_broken_frame_ends_the_clip() -> None:
    """What decodes is the clip, as with any other file that says too much."""
    data = bytearray(webp(lossless=True))
    fourth = [at for at in range(len(data)) if data[at : at + 4] == b"ANMF"][3]
    coded = fourth + 8 + 16 + 8 + 5  # behind the heads of chunk, frame, chunk and picture
    data[coded : coded + 40] = b"\xff" * 40
    with pytest.warns(UserWarning, match="of 7 frames can be decoded"):
        frames, metadata = load_video(
            bytes(data), sample_indices_fn=lambda metadata: np.arange(metadata.total_num_frames)
        )
    assert metadata.total_num_frames == len(frames) == 3
