"""The expansion of pictures and clips against Transformers, and number words against num2words."""

from __future__ import annotations

from types import SimpleNamespace

import num2words
import pytest
from faster_smolvlm.text.placeholders import (
    Clip,
    MediaTokens,
    find_placeholders,
    image_prompt,
    num_image_frames,
    number_in_words,
    replace_placeholders,
    timestamps,
    video_prompt,
)
from transformers.models.smolvlm import processing_smolvlm as reference
from transformers.video_utils import VideoMetadata

pytestmark = pytest.mark.parity

TOKENS = MediaTokens()


@pytest.mark.parametrize("grid", [(0, 0), (1, 1), (3, 4), (4, 4), (4, 1), (1, 4), (5, 7), (8, 8)])
@pytest.mark.parametrize("image_seq_len", [1, 64, 81])
def test_image_prompt(grid: tuple[int, int], image_seq_len: int) -> None:
    expected = reference.get_image_prompt_string(
        *grid, image_seq_len, TOKENS.fake_image, TOKENS.image, TOKENS.global_image
    )
    ours = image_prompt(grid, image_seq_len, TOKENS)
    assert ours == expected
    assert ours.count("<image>") == image_seq_len * num_image_frames(grid)


@pytest.mark.parametrize("fps", [None, 1.0, 0.5, 29.97, 24, 1000])
@pytest.mark.parametrize("duration", [None, 0.2, 59.999, 6000.5, 86_400])
@pytest.mark.parametrize("indices", [[0], [0, 33, 66, 99], [3, 1, 2], list(range(0, 143_860, 2400))])
def test_video_prompt(fps: float | None, duration: float | None, indices: list[int]) -> None:
    metadata = VideoMetadata(total_num_frames=200_000, fps=fps, duration=duration, frames_indices=indices)
    processor = SimpleNamespace(
        image_seq_len=3, image_token="<image>", fake_image_token=TOKENS.fake_image, global_image_token="<global-img>"
    )
    features = {"pixel_values": SimpleNamespace(shape=(1, 64)), "video_metadata": [metadata]}
    expected = reference.SmolVLMProcessor.replace_video_token(processor, features, 0)
    clip = Clip(fps or 24, duration, indices, 64)
    assert video_prompt(clip, image_prompt((0, 0), 3, TOKENS)) == expected


@pytest.mark.parametrize("clip", [Clip(None, 1.0, [0], 1), Clip(24, 1.0, None, 1)])
def test_clip_without_times(clip: Clip) -> None:
    with pytest.raises(ValueError, match="the metadata of the video has no"):
        timestamps(clip)


@pytest.mark.parametrize("numbers", [range(1001), range(1001, 1_000_000, 997), (1_100, 2_000, 20_019, 999_999)])
def test_number_words(numbers: range) -> None:
    for number in numbers:
        assert number_in_words(number) == num2words.num2words(number)


@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_number_words_out_of_range(number: int) -> None:
    with pytest.raises(ValueError, match="999,999"):
        number_in_words(number)


def test_placeholders() -> None:
    text = "a<image>b<video><image>"
    places = find_placeholders(text, {"image": "<image>", "video": "<video>"})
    assert [(place.kind, place.start) for place in places] == [("image", 1), ("video", 9), ("image", 16)]
    replaced, offsets = replace_placeholders(text, places, ["<image><image>", "", "X"])
    assert replaced == "a<image><image>bX"
    for offset in offsets:
        assert text[slice(*offset["span"])] == offset["text"]
        assert replaced[slice(*offset["new_span"])] == offset["replacement"]
    assert find_placeholders(text, {}) == []
