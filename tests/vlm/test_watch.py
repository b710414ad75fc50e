"""Streaming video: the answers are those over whole clips, each frame is encoded once, and endless sources are fine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import SmolVLM
from faster_smolvlm.media import MediaError
from faster_smolvlm.media.video_metadata import VideoMetadata

from tests.helpers.video_clips import every_frame, pictures, write_clip


@pytest.fixture(scope="module")
def vlm() -> Iterator[SmolVLM]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
        loaded = SmolVLM.from_pretrained("demo", device="cpu")
    yield loaded
    torch.set_num_threads(before)


def whole(vlm: SmolVLM, frames: list[np.ndarray], times: list[float]) -> list[int]:
    """The answer to the same frames as one clip."""
    shown = [round(seconds - times[0]) for seconds in times]
    metadata = VideoMetadata(shown[-1] + 1, fps=1.0, duration=float(shown[-1]), frames_indices=shown)
    content = [{"type": "video", "video": np.stack(frames)}, {"type": "text", "text": "What moves?"}]
    inputs = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"do_sample_frames": False, "video_metadata": [metadata]},
    )
    ids: Any = vlm.model.generate(**inputs, max_new_tokens=6)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


def test_a_file(vlm: SmolVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=100, fps=10)
    frames = every_frame(path)
    encoded = 0
    original = vlm.model.get_image_features

    def counting(pixels: Any, *rest: Any, **named: Any) -> Any:
        nonlocal encoded
        encoded += pixels.shape[0] * pixels.shape[1]
        return original(pixels, *rest, **named)

    monkeypatch.setattr(vlm.model, "get_image_features", counting)
    seen = list(vlm.watch(path, prompt="What moves?", every=2.0, window=3, max_new_tokens=6))
    monkeypatch.undo()
    assert [each.times for each in seen] == [[0.0], [0.0, 2.0], [0.0, 2.0, 4.0], [2.0, 4.0, 6.0], [4.0, 6.0, 8.0]]
    assert encoded == 5
    for each in seen:
        shown = [frames[round(10 * seconds)] for seconds in each.times]
        assert each.result.token_ids == whole(vlm, shown, each.times)
        assert each.text == each.result.text


def test_an_endless_source(vlm: SmolVLM) -> None:
    frames = pictures(7, 48, 64)
    source = ((index * 0.5, frames[index % 7]) for index in itertools.count())
    seen = list(itertools.islice(vlm.watch(source, prompt="What moves?", window=2, max_new_tokens=2), 20))
    assert seen[-1].times == [36.0, 38.0]
    gaps = [(0.0, frames[0]), (1.0, frames[1]), (9.5, frames[2]), (9.9, frames[3]), (10.0, frames[4])]
    assert [each.times[-1] for each in vlm.watch(gaps, prompt="?", max_new_tokens=1)] == [0.0, 9.5, 10.0]
    untimed = vlm.watch(list(frames), prompt="?", every=1e-9, max_new_tokens=1)
    assert len(list(untimed)) == 7


def test_arguments(vlm: SmolVLM, tmp_path: Path) -> None:
    for wrong in ({"every": 0}, {"every": float("nan")}, {"window": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            vlm.watch([], prompt="?", **wrong)
    (tmp_path / "bad.mp4").write_text("no")
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        list(vlm.watch(tmp_path / "bad.mp4", prompt="?"))
