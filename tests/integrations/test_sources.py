"""What Transformers' processors take and refuse stays theirs when they are accelerated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from faster_smolvlm.integrations.transformers import accelerate, videos
from faster_smolvlm.media.video import load_video
from PIL import Image

from tests.helpers.media_sources import CLIPS, ENCODED, PICTURES, TEXT
from tests.helpers.video_clips import pictures, write_clip

pytestmark = pytest.mark.parity


def outcome(call: Callable[[], Any]) -> Any:
    """The pixels, or the kind of error."""
    try:
        return np.asarray(call()["pixel_values"])
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("name", [*ENCODED, *PICTURES])
def test_pictures(tmp_path: Path, served: list[int], name: str) -> None:
    picture = pictures(1, 70, 90)[0]
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    theirs, ours = (transformers.SmolVLMImageProcessor() for _ in range(2))
    accelerate(ours)
    make = (lambda: ENCODED[name](path)) if name in ENCODED else (lambda: PICTURES[name](picture))
    expected = outcome(lambda: theirs(make(), return_tensors="np"))
    found = outcome(lambda: ours(make(), return_tensors="np"))
    if isinstance(expected, type):
        assert found is expected
        assert name not in (*TEXT, *PICTURES)
    else:
        np.testing.assert_array_equal(found, expected)
        assert served


@pytest.mark.parametrize("name", CLIPS)
def test_clips(served: list[int], name: str) -> None:
    clip = pictures(3, 70, 90)
    theirs, ours = (transformers.SmolVLMVideoProcessor() for _ in range(2))
    accelerate(ours)
    expected = theirs(CLIPS[name](clip), return_tensors="pt", do_sample_frames=False)["pixel_values"]
    found = ours(CLIPS[name](clip), return_tensors="pt", do_sample_frames=False)["pixel_values"]
    np.testing.assert_array_equal(found, expected)
    assert served


@pytest.mark.parametrize("name", ENCODED)
def test_clips_that_are_decoded(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a decoder of Transformers every source is read, as everywhere else."""
    monkeypatch.setattr(videos, "_has_decoder", lambda: False)
    path = write_clip(tmp_path / "clip.mp4", frames=3)
    ours = accelerate(transformers.SmolVLMVideoProcessor())
    frames, _ = ours.fetch_videos(ENCODED[name](path))
    np.testing.assert_array_equal(frames, load_video(path)[0])
