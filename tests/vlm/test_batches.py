"""A list of prompts: an error names its prompt, picture and clip, and the other prompts can be answered without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import MediaDecodeError, MediaError, MediaTypeError, SmolVLM
from PIL import Image

from tests.helpers.video_clips import write_clip

PICTURE = Image.new("RGB", (60, 40), "red")


@pytest.fixture(scope="module", params=["native", "torch"])
def vlm(request: pytest.FixtureRequest) -> SmolVLM:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTER_SMOLVLM_ENGINE", request.param)
        return SmolVLM.from_pretrained("demo", device="cpu")


def test_a_bad_row_is_named_and_can_be_left_out(vlm: SmolVLM) -> None:
    prompts: list[Any] = ["What?", "Hi", "a\ud83d", "Why?", 5, "How?"]
    images: list[Any] = [[PICTURE], [], [], [PICTURE, b"broken"], [], [np.zeros((8, 8, 5), np.uint8)]]
    with pytest.raises(ValueError, match="prompt 3 of 6: prompt holds half of a surrogate"):
        vlm.generate(prompts, images=images, max_new_tokens=2)
    results = vlm.generate(prompts, images=images, max_new_tokens=2, on_error="return")
    errors = [result.error for result in results]
    assert [error is None for error in errors] == [True, True, False, False, False, False]
    assert isinstance(errors[3], MediaDecodeError)
    assert str(errors[3]).startswith("prompt 4 of 6: picture 2: ")
    assert str(errors[4]) == "prompt 5 of 6: prompt has to be a string or a non-empty list of strings, got 5"
    assert str(errors[5]).startswith("prompt 6 of 6: ")
    assert [(r.text, r.token_ids, r.finish_reason) for r in results[2:]] == [("", [], "error")] * 4
    alone = [vlm.generate("What?", images=[PICTURE], max_new_tokens=2), vlm.generate("Hi", max_new_tokens=2)]
    assert [result.token_ids for result in results[:2]] == [result.token_ids for result in alone]


def test_nothing_is_left(vlm: SmolVLM) -> None:
    (result,) = vlm.generate(["?"], images=[[b"broken"]], on_error="return")
    assert isinstance(result.error, MediaDecodeError)
    result = vlm.generate("?", images=[3], on_error="return")
    assert isinstance(result.error, MediaTypeError)
    result = vlm.chat([{"role": "user"}], on_error="return")
    assert "no content" in str(result.error)
    assert vlm.generate("?", max_new_tokens=1).error is None


def test_a_bad_clip_is_named(vlm: SmolVLM, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=4, fps=2)
    (tmp_path / "bad.mp4").write_bytes(b"broken")
    with pytest.raises(MediaError, match=r"prompt 2 of 2: clip 2: .*bad\.mp4"):
        vlm.generate(["a", "b"], videos=[[clip], [clip, tmp_path / "bad.mp4"]], max_new_tokens=1)
    with pytest.raises(MediaError, match=r"^clip 2: .*bad\.mp4"):
        vlm.generate("b", videos=[clip, tmp_path / "bad.mp4"], max_new_tokens=1)
    results = vlm.generate(["a", "b"], videos=[[clip], [tmp_path / "bad.mp4"]], max_new_tokens=1, on_error="return")
    assert results[0].token_ids == vlm.generate("a", videos=[clip], max_new_tokens=1).token_ids
    assert "bad.mp4" in str(results[1].error)


def test_a_prompt_that_is_too_long() -> None:
    vlm = SmolVLM.from_pretrained("demo", device="cpu")
    long = "word " * 20_000
    results = vlm.generate(["Hi", long], max_new_tokens=1, on_error="return")
    assert results[0].token_ids
    assert "prompt 2 of 2" in str(results[1].error)
    with pytest.raises(ValueError, match=r"prompt 2 of 2: .*tokens"):
        vlm.generate(["Hi", long], max_new_tokens=1)


@pytest.mark.parametrize("prompt", [None, b"x", 5, 1.5, {"a": "b"}, {"a"}, object(), PICTURE, np.array(["a"])])
def test_prompts_of_other_types(prompt: Any, vlm: SmolVLM) -> None:
    with pytest.raises(ValueError, match="prompt has to be a string") as error:
        vlm.generate(prompt, images=PICTURE)
    assert " at 0x" not in str(error.value)
    with pytest.raises(ValueError, match="prompt 1 of 2: prompt has to be a string"):
        vlm.generate([prompt, "a"])


@pytest.mark.parametrize("given", [PICTURE, "ab", b"ab", {"bytes": b"x"}, 5, {1, 2}, np.zeros((2, 8, 3), np.uint8)])
def test_media_of_a_list_of_prompts(given: Any, vlm: SmolVLM) -> None:
    for name in ("images", "videos"):
        with pytest.raises(ValueError, match=f"2 prompts need as many lists of {name}"):
            vlm.generate(["a", "b"], **{name: given})


def test_no_media(vlm: SmolVLM) -> None:
    expected = vlm.generate("a", max_new_tokens=2).token_ids
    assert vlm.generate("a", images=None, videos=None, max_new_tokens=2).token_ids == expected
    assert vlm.generate(["a"], images=None, videos=[None], max_new_tokens=2)[0].token_ids == expected
    with pytest.raises(ValueError, match="on_error has to be"):
        vlm.generate("a", on_error="ignore")


def test_prompts_with_clips_read_as_if_each_were_asked_alone(vlm: SmolVLM) -> None:
    """The text of a prompt says how many frames its longest clip has, whatever else is in the list."""
    made = [np.random.default_rng(count).integers(0, 255, (count, 64, 96, 3), np.uint8) for count in (3, 5, 2, 9)]
    clips = [[made[0]], [], [made[1], made[2]], [made[2]], [made[3]]]
    options = {"max_new_tokens": 6, "skip_special_tokens": False}
    together = vlm.generate(["What happens?"] * len(clips), videos=clips, **options)
    for result, own in zip(together, clips, strict=True):
        alone = vlm.generate("What happens?", videos=own, **options)
        assert result.usage.prompt_tokens == alone.usage.prompt_tokens
        assert result.token_ids == alone.token_ids
    lengths = [result.usage.prompt_tokens for result in together]
    assert lengths[1] < lengths[3] < lengths[0] < lengths[2] < lengths[4]
