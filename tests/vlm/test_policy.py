"""One policy for every entrance of `SmolVLM`: pictures, clips, conversations, streams and running videos obey it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import MediaLimitError, MediaPolicy, MediaRefusedError, SmolVLM
from PIL import Image

from tests.helpers.video_clips import write_clip

Entrance = Callable[[SmolVLM, Any, Any], object]


def _asked(kind: str, source: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, kind: source}, {"type": "text", "text": "?"}]}]


# Each takes a picture and a clip, and shows one of them to the model.
PICTURES: dict[str, Entrance] = {
    "generate": lambda vlm, picture, _: vlm.generate("?", images=[picture], max_new_tokens=1),
    "batch": lambda vlm, picture, _: vlm.generate(["?", "?"], images=[[], [picture]], max_new_tokens=1),
    "chat": lambda vlm, picture, _: vlm.chat(_asked("image", picture), max_new_tokens=1),
    "stream": lambda vlm, picture, _: vlm.stream("?", images=[picture], max_new_tokens=1),
    "frames of a clip": lambda vlm, picture, _: vlm.generate("?", videos=[[picture, picture]], max_new_tokens=1),
    "watched pictures": lambda vlm, picture, _: list(vlm.watch([(0.0, picture)], prompt="?", max_new_tokens=1)),
}
CLIPS: dict[str, Entrance] = {
    "generate": lambda vlm, _, clip: vlm.generate("?", videos=[clip], max_new_tokens=1),
    "mixed": lambda vlm, _, clip: vlm.generate("?", videos=[np.zeros((1, 8, 8, 3), np.uint8), clip], max_new_tokens=1),
    "chat": lambda vlm, _, clip: vlm.chat(_asked("video", clip), max_new_tokens=1),
    "stream": lambda vlm, _, clip: vlm.stream("?", videos=[clip], max_new_tokens=1),
    "watch": lambda vlm, _, clip: list(vlm.watch(clip, prompt="?", max_new_tokens=1)),
}
ENTRANCES = [
    *(pytest.param(enter, id=f"picture: {name}") for name, enter in PICTURES.items()),
    *(pytest.param(enter, id=f"clip: {name}") for name, enter in CLIPS.items()),
]


@pytest.fixture(scope="module")
def loaded() -> SmolVLM:
    return SmolVLM.from_pretrained("demo", device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("media")
    Image.new("RGB", (96, 64), "red").save(folder / "picture.png")
    return folder / "picture.png", write_clip(folder / "clip.mp4", frames=4, fps=2)


def limited(vlm: SmolVLM, **limits: Any) -> SmolVLM:
    return SmolVLM(vlm.model, vlm.processor, policy=MediaPolicy(**limits))


@pytest.mark.parametrize("enter", ENTRANCES)
def test_every_entrance_obeys(loaded: SmolVLM, files: tuple[Path, Path], enter: Entrance) -> None:
    enter(loaded, *files)  # without limits all are fine
    with pytest.raises(MediaRefusedError, match="not allowed"):
        enter(SmolVLM(loaded.model, loaded.processor, policy=MediaPolicy.strict()), *files)
    with pytest.raises(MediaLimitError, match="max_bytes"):
        enter(limited(loaded, max_bytes=16), *files)
    with pytest.raises(MediaLimitError, match="max_output_bytes"):
        enter(limited(loaded, max_output_bytes=16), *files)


@pytest.mark.parametrize("name", PICTURES)
def test_decoded_pictures_are_limited_too(loaded: SmolVLM, name: str) -> None:
    for picture in (Image.new("RGB", (96, 64)), np.zeros((64, 96, 3), np.uint8)):
        PICTURES[name](loaded, picture, None)
        with pytest.raises(MediaLimitError, match="max_pixels"):
            PICTURES[name](limited(loaded, max_pixels=96 * 64 - 1), picture, None)


def test_without_a_policy_that_of_the_processor_counts(loaded: SmolVLM, files: tuple[Path, Path]) -> None:
    before = loaded.processor.media_policy
    loaded.processor.media_policy = MediaPolicy.strict()
    try:
        vlm = SmolVLM(loaded.model, loaded.processor)
        assert vlm.policy == MediaPolicy.strict()
        for enter in (PICTURES["generate"], CLIPS["generate"]):
            with pytest.raises(MediaRefusedError):
                enter(vlm, *files)
            enter(limited(loaded), *files)  # the policy that is given wins
    finally:
        loaded.processor.media_policy = before
