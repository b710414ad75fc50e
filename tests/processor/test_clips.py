"""Clips in prompts: `SmolVLMProcessor` against Transformers, and what Transformers gets wrong."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from faster_smolvlm.media.nesting import count_videos, nest_images
from faster_smolvlm.processor.processing_smolvlm import SmolVLMProcessor
from transformers.video_utils import VideoMetadata

pytestmark = pytest.mark.parity

Pair = tuple[SmolVLMProcessor, Any]

TILE = 32


def clip(frames: int, shade: int = 0) -> np.ndarray[Any, Any]:
    """Frames (frames, 32, 32, 3), each of one shade that tells it from the others."""
    return np.stack([np.full((TILE, TILE, 3), 10 + shade + index, np.uint8) for index in range(frames)])


def picture(shade: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (TILE, TILE), (shade, shade, shade))


@pytest.fixture(scope="module")
def pair(small_checkpoint: Path) -> Pair:
    pytest.importorskip("faster_smolvlm.pixels.video_processing_smolvlm")
    ours = SmolVLMProcessor.from_pretrained(small_checkpoint)
    assert ours.video_processor is not None
    return ours, transformers.AutoProcessor.from_pretrained(small_checkpoint)


def assert_same(ours: Any, reference: Any) -> None:
    assert list(ours) == list(reference)
    for key, value in reference.items():
        if isinstance(value, (torch.Tensor, np.ndarray)):
            assert ours[key].dtype == value.dtype, key
            np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-6)
        else:
            assert ours[key] == value, key


def metadata(frames: int, fps: float | None = 2.0, duration: float | None = None) -> VideoMetadata:
    return VideoMetadata(total_num_frames=frames, fps=fps, duration=duration, frames_indices=list(range(frames)))


CALLS: dict[str, dict[str, Any]] = {
    "no metadata": {"text": "<video>What?", "videos": clip(3)},
    "metadata": {"text": "a<video>b", "videos": clip(3), "video_metadata": [metadata(3)]},
    "duration": {"text": "<video>", "videos": [clip(2)], "video_metadata": [metadata(2, 24.0, 6000.5)]},
    "a hundred minutes": {
        "text": "<video>",
        "videos": clip(2),
        "video_metadata": [VideoMetadata(6001, 1.0, duration=6001.0, frames_indices=[59, 6000])],
    },
    "two clips, one prompt": {
        "text": "<video>first, then <video>",
        "videos": [clip(2), clip(2, 50)],
        "video_metadata": [metadata(2), metadata(2)],
    },
    "uneven clips, two prompts": {
        "text": ["<video>one", "<video>two"],
        "videos": [clip(5), clip(2, 50)],
        "video_metadata": [metadata(5), metadata(2)],
        "padding": True,
    },
    "a prompt without": {"text": ["<video>one", "none"], "videos": [clip(2)], "padding": True, "padding_side": "left"},
    "truncated to enough": {"text": "<video>one", "videos": clip(2), "truncation": True, "max_length": 2000},
    "types": {"text": "<video>one", "videos": clip(2), "return_mm_token_type_ids": True},
    "clips only": {"videos": [clip(3), clip(2)]},
    "sampled": {
        "text": "<video>",
        "videos": clip(40),
        "video_metadata": [metadata(40, 4.0, 10.0)],
        "do_sample_frames": True,
        "num_frames": 4,
        "fps": 1,
    },
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("return_tensors", ["pt", "np"])
def test_call(name: str, return_tensors: str, pair: Pair) -> None:
    arguments = {**CALLS[name], "return_tensors": return_tensors}
    assert_same(pair[0](**arguments), pair[1](**arguments))


ERRORS: dict[str, dict[str, Any]] = {
    "too many tokens": {"text": "<video><video>", "videos": clip(2)},
    "no clips": {"text": "<video>"},
    "clips and pictures without text": {"images": picture(3), "videos": clip(2)},
    "truncated": {"text": "<video>", "videos": clip(2), "truncation": True, "max_length": 9, "return_tensors": "pt"},
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, pair: Pair) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever Transformers raises
        pair[1](**ERRORS[name])
    with pytest.raises(type(expected.value)) as found:
        pair[0](**ERRORS[name])
    assert str(found.value) == str(expected.value)


def test_lists(pair: Pair) -> None:
    """Without return_tensors Transformers fails on a clip with text (Q18); the ids here are those with tensors."""
    ours = pair[0](text="<video>", videos=clip(2))
    assert ours["input_ids"] == pair[1](text="<video>", videos=clip(2), return_tensors="pt")["input_ids"].tolist()


def test_missing_frame_rate_is_logged(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pair[0](text="<video>", videos=clip(2), return_tensors="np")
    assert "Defaulting to `fps=24`" in caplog.text


def shades(row: Any) -> list[int]:
    """The shade of each frame, 0 for padding."""
    return [0 if not frame.any() else round((float(frame.mean()) + 1) * 127.5) for frame in np.asarray(row)]


def test_pictures_and_clips_in_one_call(pair: Pair) -> None:
    """Transformers keeps the pixels of the clips only (Q15); here each prompt has its frames in order."""
    ours = pair[0](
        text=["<image>then<video>then<image>", "<video><video>", "<image>"],
        images=[[picture(200), picture(210)], [], [picture(220)]],
        videos=[clip(2), clip(1, 50), clip(3, 80)],
        video_metadata=[metadata(2), metadata(1), metadata(3)],
        do_image_splitting=False,
        padding=True,
        return_tensors="np",
    )
    rows = [shades(row) for row in ours["pixel_values"]]
    assert rows == [[200, 10, 11, 210], [60, 90, 91, 92], [220, 0, 0, 0]]
    frames = ours["pixel_attention_mask"].any(axis=(2, 3)).sum(axis=1).tolist()
    assert frames == [4, 4, 1]
    tokens = (ours["input_ids"] == pair[0].image_token_id).sum(axis=1).tolist()
    assert tokens == [count * pair[0].image_seq_len for count in frames]
    tensors = pair[0](
        text="<image><video>", images=picture(200), videos=clip(2), video_metadata=[metadata(2)],
        do_image_splitting=False, return_tensors="pt",
    )  # fmt: skip
    assert shades(tensors["pixel_values"][0]) == [200, 10, 11]


def test_split_pictures_and_clips(pair: Pair) -> None:
    ours = pair[0](
        text="<video><image>", images=PIL.Image.new("RGB", (100, 50), (200, 200, 200)), videos=clip(2),
        video_metadata=[metadata(2)], return_tensors="np",
    )  # fmt: skip
    found = shades(ours["pixel_values"][0])
    assert found[:2] == [10, 11]
    assert found[2:] == [200] * 9, "2×4 tiles and the global view"
    assert (ours["input_ids"] == pair[0].image_token_id).sum() == len(found) * pair[0].image_seq_len


def test_frames_of_two_sizes(pair: Pair) -> None:
    with pytest.raises(ValueError, match="must have one size"):
        pair[0](text="<image><video>", images=picture(3), videos=clip(2), max_image_size={"longest_edge": 64})


def user(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def test_chat(pair: Pair) -> None:
    text = {"type": "text", "text": "What moves?"}
    arguments = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    conversation = user({"type": "video", "video": clip(20)}, text)
    given = {"video_metadata": [metadata(20, 4.0, 5.0)]}
    for options in ({**given}, {**given, "do_sample_frames": False}, {**given, "num_frames": 2}):
        ours = pair[0].apply_chat_template(conversation, processor_kwargs=dict(options), **arguments)
        assert_same(ours, pair[1].apply_chat_template(conversation, processor_kwargs=dict(options), **arguments))
    for processor in pair:
        with pytest.raises(ValueError, match="metadata"):
            processor.apply_chat_template(conversation, **arguments)


def test_chat_with_frame_paths(pair: Pair, tmp_path: Path) -> None:
    paths = []
    for index in range(3):
        paths.append(str(tmp_path / f"{index}.png"))
        picture(50 + index).save(paths[-1])
    conversation = user({"type": "video", "video": paths}, {"type": "text", "text": "What moves?"})
    arguments = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    for processor in pair:
        with pytest.raises(ValueError, match=r"[Ss]ampling frames from a list of images"):
            processor.apply_chat_template(conversation, **arguments)
    options = {"do_sample_frames": False}
    ours = pair[0].apply_chat_template(conversation, processor_kwargs=options, **arguments)
    assert shades(ours["pixel_values"][0]) == [50, 51, 52]


def test_chat_with_files(pair: Pair, data_dir: Path) -> None:
    """A clip by its path, sampled as the settings say."""
    path = sorted(path for path in (data_dir / "videos").iterdir() if path.suffix == ".mp4")[0]
    text = {"type": "text", "text": "What moves?"}
    ours = pair[0].apply_chat_template(
        user({"type": "video", "path": str(path)}, text), tokenize=True, return_dict=True, return_tensors="np"
    )
    frames = ours["pixel_values"].shape[1]
    assert 1 <= frames <= 8
    assert (ours["input_ids"] == pair[0].image_token_id).sum() == frames * pair[0].image_seq_len


def test_without_video_processor(small_checkpoint: Path) -> None:
    whole = SmolVLMProcessor.from_pretrained(small_checkpoint)
    ours = SmolVLMProcessor(whole.image_processor, whole.tokenizer, None, 4, whole.chat_template)
    with pytest.raises(NotImplementedError, match="no video processor"):
        ours(text="<video>", videos=clip(2))
    assert ours.apply_chat_template(user({"type": "video", "path": "x"})).startswith("<|im_start|>User: <video>")


@pytest.mark.parametrize(
    ("videos", "count"),
    [
        ("a.mp4", 1),
        (["a.mp4", "b.mp4"], 2),
        ([["a.mp4"], ["b.mp4", "c.mp4"]], 3),
        (Path("a.mp4"), 1),
        (b"bytes", 1),
        (io.BytesIO(b"bytes"), 1),
        (clip(3), 1),
        (clip(3)[0], 1),
        (np.stack([clip(3), clip(3)]), 2),
        ([clip(3), clip(2)], 2),
        ([[clip(3)], [clip(2), clip(2)]], 3),
        (list(clip(3)), 1),
        ([picture(1), picture(2)], 1),
        ([[picture(1)], [picture(2), picture(3)]], 2),
        ([[["0.png", "1.png"]], [["0.png"], ["1.png"]]], 3),
        ([], 0),
        ([[], [clip(1)]], 1),
    ],
)
def test_count_videos(videos: Any, count: int) -> None:
    assert count_videos(videos) == count


@pytest.mark.parametrize("videos", [5, None, object(), [5], np.zeros((2, 2))])
def test_no_videos(videos: Any) -> None:
    with pytest.raises(ValueError, match="Invalid video input"):
        count_videos(videos)


@pytest.mark.parametrize(
    ("images", "counts"),
    [
        (picture(1), [1]),
        ("a.png", [1]),
        ([picture(1), "a.png"], [2]),
        ([[picture(1)], [], ["a", "b"]], [1, 0, 2]),
        (clip(3), [3]),
        ([clip(3), clip(2)], [3, 2]),
        (list(clip(3)), [3]),
        ([], []),
        ([[]], [0]),
    ],
)
def test_nest_images(images: Any, counts: list[int]) -> None:
    assert [len(sample) for sample in nest_images(images)] == counts


def test_nest_too_many_dimensions() -> None:
    with pytest.raises(ValueError, match="Invalid input type"):
        nest_images(np.zeros((1, 1, 2, 2, 3)))
