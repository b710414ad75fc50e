"""`FrameSampling`: every rule on files, on arrays, and on sources whose length nobody knows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import FrameSampling, SmolVLM, SmolVLMVideoProcessor
from faster_smolvlm.media.video import VideoReader, load_video

from tests.helpers.video_clips import every_frame, pictures, write_clip

# Frames 0, 12, 24 … are key frames; there is a gap in time after frame 19.
TIMES = [100 * index + (1500 if index >= 20 else 0) for index in range(60)]
RULES = {
    "uniform": FrameSampling.uniform(7),
    "uniform, more than there are": FrameSampling.uniform(200),
    "rate": FrameSampling.rate(2.0),
    "rate, too many": FrameSampling.rate(5.0, max_frames=4),
    "at": FrameSampling.at([40, 3, 3, 59]),
    "at, from the end": FrameSampling.at([-1, 0]),
    "key frames": FrameSampling.key_frames(),
    "key frames, too many": FrameSampling.key_frames(2),
}
EXPECTED = {
    "uniform": [0, 8, 17, 25, 34, 42, 51],
    "uniform, more than there are": list(range(60)),
    # In the gap the frame before it stays on the screen; then ticks fall between frames.
    "rate": [0, 5, 10, 15, 19, 20, 25, 30, 35, 40, 45, 50, 55],
    "at": [3, 40, 59],
    "at, from the end": [0, 59],
    "key frames": [0, 12, 24, 36, 48],
    "key frames, too many": [0, 48],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"g": "12", "bf": "2", "sc_threshold": "0"}
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=60, times=TIMES, options=options)


@pytest.fixture(scope="module")
def expected_frames(path: Path) -> list[np.ndarray]:
    return every_frame(path)


@pytest.mark.parametrize("name", RULES)
def test_a_file(path: Path, expected_frames: list[np.ndarray], name: str) -> None:
    frames, metadata = load_video(path, sampling=RULES[name])
    if name in EXPECTED:
        assert metadata.frames_indices.tolist() == EXPECTED[name]
    else:
        assert len(frames) == 4
        assert set(metadata.frames_indices.tolist()) <= set(range(60))
    np.testing.assert_array_equal(frames, np.stack([expected_frames[i] for i in metadata.frames_indices]))


@pytest.mark.parametrize("name", RULES)
def test_a_stream_of_unknown_length(path: Path, expected_frames: list[np.ndarray], name: str) -> None:
    """Kept while the frames arrive: the same frames where the bound is not reached, else evenly spread ones."""
    reader = VideoReader(path)
    keys = set(reader.key_frames)
    source = ((t, frame, i in keys) for i, (t, frame) in enumerate(zip(reader.times, expected_frames, strict=True)))
    rule = RULES[name]
    if name == "at, from the end":
        with pytest.raises(ValueError, match="from the end"):
            rule.collect(source)
        return
    frames, metadata = rule.collect(source)
    indices = metadata.frames_indices.tolist()
    assert metadata.total_num_frames == 60
    assert metadata.duration == pytest.approx(60 / metadata.fps)
    assert 1 <= len(frames) <= rule.max_frames
    for index, frame in zip(indices, frames, strict=True):
        np.testing.assert_array_equal(frame, expected_frames[index])
    if name == "rate":  # a frame that is on the screen at a tick is known only when the next one comes
        assert indices == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55]
    elif name == "uniform":
        assert max(np.diff(indices)) <= 2 * 60 / 7
    elif name == "key frames, too many":
        assert set(indices) <= keys
    elif name in EXPECTED:
        assert indices == EXPECTED[name]


def test_an_endless_source_takes_no_more_memory() -> None:
    alive = 0
    most = 0

    class Frame:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    for rule in (FrameSampling.uniform(8), FrameSampling.rate(10.0, 8), FrameSampling.key_frames(8)):
        most = 0
        endless = ((index / 25, Frame(), index % 5 == 0) for index in itertools.count())
        frames, metadata = rule.collect(itertools.islice(endless, 20_000))
        assert len(frames) == 8
        assert metadata.fps == pytest.approx(25)
        assert most <= 18
        assert max(np.diff(metadata.frames_indices)) <= 2 * 20_000 / 8
        del frames


def test_the_processor(path: Path, expected_frames: list[np.ndarray]) -> None:
    ours = SmolVLMVideoProcessor(size={"longest_edge": 128}, max_image_size={"longest_edge": 64})
    ask: dict[str, Any] = {"do_sample_frames": True, "return_metadata": True, "return_tensors": "np"}
    rule = FrameSampling.key_frames(3)
    got = ours(path, frame_sampling=rule, **ask)
    assert got["video_metadata"][0].frames_indices.tolist() == [0, 24, 48]
    expected = ours(np.stack([expected_frames[i] for i in (0, 24, 48)]), return_tensors="np")
    np.testing.assert_array_equal(got["pixel_values"], expected["pixel_values"])
    ours.frame_sampling = FrameSampling.at([5, -1])
    assert ours(str(path), **ask)["video_metadata"][0].frames_indices.tolist() == [5, 59]
    array = np.stack(expected_frames)
    assert ours(array, **ask)["video_metadata"][0].frames_indices.tolist() == [5, 59]
    given = {"total_num_frames": 60, "fps": 10.0}
    rate = ours(array, frame_sampling=FrameSampling.rate(2.0), video_metadata=given, **ask)
    assert rate["video_metadata"][0].frames_indices.tolist() == list(range(0, 60, 5))
    with pytest.raises(ValueError, match="needs the `fps`"):
        ours(array, frame_sampling=FrameSampling.rate(2.0), **ask)
    with pytest.raises(ValueError, match="key frames"):
        ours(array, frame_sampling=rule, **ask)
    assert "frame_sampling" not in ours.to_dict()


def test_answers(path: Path) -> None:
    vlm = SmolVLM.from_pretrained("demo", device="cpu")
    vlm.processor.video_processor.frame_sampling = FrameSampling.uniform(3)
    three = vlm.generate("What moves?", videos=[path], max_new_tokens=2)
    assert three.usage.frames in (0, 3)  # torch does not count them
    vlm.processor.video_processor.frame_sampling = FrameSampling.uniform(5)
    five = vlm.generate("What moves?", videos=[path], max_new_tokens=2)
    assert five.usage.prompt_tokens > three.usage.prompt_tokens


def test_wrong_arguments(path: Path) -> None:
    for make in (
        lambda: FrameSampling.uniform(0),
        lambda: FrameSampling.rate(0),
        lambda: FrameSampling.rate(1, max_frames=0),
        lambda: FrameSampling.at([]),
        lambda: FrameSampling.key_frames(-1),
    ):
        with pytest.raises(ValueError, match=r"above 0|or more"):
            make()
    with pytest.raises(ValueError, match=r"clip\.mp4.*outside a video of 60 frames"):
        load_video(path, sampling=FrameSampling.at([60]))
    with pytest.raises(ValueError, match="mutually exclusive"):
        load_video(path, sampling=FrameSampling.uniform(2), num_frames=2)
    frames = [(index / 10, frame) for index, frame in enumerate(pictures(3, 8, 8))]
    with pytest.raises(ValueError, match="is_key"):
        FrameSampling.key_frames().collect(frames)
    with pytest.raises(ValueError, match="outside a video of 3 frames"):
        FrameSampling.at([7]).collect(frames)
    with pytest.raises(ValueError, match="no frames"):
        FrameSampling.uniform(2).collect([])
    with pytest.raises(ValueError, match="finite"):
        FrameSampling.uniform(2).collect([(float("nan"), None)])
