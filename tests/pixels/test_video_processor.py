"""`SmolVLMVideoProcessor` against Transformers' class on the same frames; the ids are those of the parity checklist."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm import SmolVLMVideoProcessor, _rust
from faster_smolvlm.media.video import default_sample_indices_fn
from faster_smolvlm.media.video_metadata import VideoMetadata
from PIL import Image
from transformers.video_utils import VideoMetadata as TheirMetadata
from transformers.video_utils import default_sample_indices_fn as their_default_sample

from tests.helpers.video_clips import write_clip

pytestmark = pytest.mark.parity

SIZES = {"size": {"longest_edge": 512}, "max_image_size": {"longest_edge": 128}}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def both(**settings: Any) -> tuple[Any, Any]:
    return SmolVLMVideoProcessor(**settings), transformers.SmolVLMVideoProcessor(**settings)


def clip(frames: int = 5, height: int = 90, width: int = 120, channels: int = 3, seed: int = 0) -> np.ndarray:
    # Smooth pictures with sharp edges: pure noise would hide an error of the filter's centre.
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (5 + t) + t) * np.cos(y / 7) for t in range(frames)]
    video = np.stack([np.stack([wave * 90 + 128 + 10 * c for c in range(channels)], -1) for wave in waves])
    video[:, height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, channels)
    return np.clip(video + rng.normal(0, 6, video.shape), 0, 255).astype(np.uint8)


def check(videos: Any, settings: dict[str, Any] | None = None, **call: Any) -> Any:
    """Both sides on the same input: equal keys, types, shapes, and not one value of another."""
    ours, theirs = both(**(settings or SIZES))
    call.setdefault("return_tensors", "pt")
    got, expected = ours(videos, **copy.deepcopy(call)), theirs(videos, **copy.deepcopy(call))
    assert list(got.keys()) == list(expected.keys())
    for key in ("pixel_values", "pixel_attention_mask"):
        if key not in expected:
            continue
        pairs = (
            [(got[key], expected[key])]
            if hasattr(expected[key], "shape")
            else list(zip(got[key], expected[key], strict=True))
        )
        for mine, other in pairs:
            assert mine.dtype == other.dtype
            assert tuple(mine.shape) == tuple(other.shape)
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))
    return got


def frames_of(video: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in video]


VIDEOS = {
    "thwc": lambda: clip(),
    "tchw": lambda: clip().transpose(0, 3, 1, 2).copy(),
    "tensor": lambda: torch.from_numpy(clip()),
    "tensor tchw": lambda: torch.from_numpy(clip()).permute(0, 3, 1, 2),
    "pil": lambda: frames_of(clip()),
    "list of arrays": lambda: list(clip()),
    "list of tensors": lambda: list(torch.from_numpy(clip())),
    "batch of pil": lambda: [frames_of(clip()), frames_of(clip(seed=1))],
    "nested": lambda: [[clip()], [clip(seed=1)]],
    "5-d": lambda: np.stack([clip(), clip(seed=1)]),
    "5-d tensor": lambda: torch.from_numpy(np.stack([clip(), clip(seed=1)])),
    "one array frame": lambda: clip()[0],
    "one pil frame": lambda: frames_of(clip())[0],
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_v01_every_form_of_a_clip(kind: str) -> None:
    check(VIDEOS[kind]())


def test_v02_grey_is_repeated_and_rgba_refused() -> None:
    check(clip(channels=1))
    check(clip(channels=1), do_convert_rgb=True, return_tensors="np")
    for processor in both(**SIZES):
        with pytest.raises(ValueError, match="Unable to infer channel dimension format"):
            processor(clip(channels=4))


def test_v02_rgba_with_a_stated_layout() -> None:
    ours, theirs = both(**SIZES)
    for alpha in (255, 100):
        video = clip(channels=4)
        video[..., 3] = alpha
        call = {"input_data_format": "channels_last", "return_tensors": "pt"}
        torch.testing.assert_close(
            ours(video, **call)["pixel_values"], theirs(video, **call)["pixel_values"], rtol=0, atol=4e-6
        )


def test_v03_clips_of_different_lengths() -> None:
    got = check([clip(6), clip(3, seed=1)])
    assert not got["pixel_values"][1, 3:].any()
    assert got["pixel_attention_mask"].all()
    check([clip(6), clip(3, height=64, seed=1)])


def test_v04_without_padding() -> None:
    check([clip(4), clip(4, seed=1)], do_pad=False)
    for processor in both(**SIZES):
        with pytest.raises(ValueError, match="Unable to convert output 'pixel_values'"):
            processor([clip(6), clip(3)], do_pad=False, return_tensors="pt")


def test_v05_random_sampling() -> None:
    ours, theirs = both()
    chance = random.Random(0)
    for _ in range(2000):
        total = chance.choice([1, 2, chance.randint(1, 100), chance.randint(1, 20_000)])
        fps = chance.choice([24, 25, 30, 29.97002997, 23.976, chance.uniform(0.5, 120)])
        duration = chance.choice([total / fps, chance.uniform(0, 1000), int(total / fps) + 0.5])
        ask = {
            "num_frames": chance.choice([1, 2, 8, 64, chance.randint(1, 500)]),
            "fps": chance.choice([1, 2, 0.5, chance.uniform(0.01, 40)]),
            "skip_secs": chance.choice([1, 1, 0, 2, 0.5]),
        }
        mine = ours.sample_frames(VideoMetadata(total, fps=fps, duration=duration), **ask)
        other = theirs.sample_frames(TheirMetadata(total, fps=fps, duration=duration), **ask)
        assert mine.dtype == other.dtype
        assert mine.tolist() == other.tolist(), (total, fps, duration, ask)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ((64, 1, 300, 30, 10), [0, 33, 66, 99, 132, 166, 199, 232, 265, 299]),
        ((4, 1, 300, 30, 10), [30, 110, 190, 270]),
        ((8, 1, 300, 30, 10), [0, 42, 85, 128, 170, 213, 256, 299]),
        ((8, 0.5, 300, 30, 10), [30, 90, 150, 210, 270]),
        ((64, 1, 75, 30, 2.5), [0, 74]),
        ((64, 1, 10, 30, 0.33), [0]),
    ],
)
def test_v05_the_table(ask: tuple[Any, ...], expected: list[int]) -> None:
    at_most, rate, total, fps, duration = ask
    assert _rust.sample_frames(total, fps, duration, at_most, rate) == expected


def test_v05_uniform_and_rate_sampling() -> None:
    chance = random.Random(1)
    for _ in range(500):
        total, fps = chance.randint(1, 5000), chance.uniform(1, 120)
        for ask in ({"num_frames": chance.randint(1, total)}, {"fps": chance.uniform(0.01, fps)}, {}):
            mine = default_sample_indices_fn(VideoMetadata(total, fps=fps), **ask)
            assert mine.tolist() == their_default_sample(TheirMetadata(total, fps=fps), **ask).tolist()


def test_v05_sampled_arrays() -> None:
    metadata = {"total_num_frames": 40, "fps": 10.0, "duration": 4.0}
    ask = {"do_sample_frames": True, "num_frames": 8, "fps": 2, "return_metadata": True}
    got = check(clip(40), video_metadata=metadata, **ask)
    assert got["video_metadata"][0].frames_indices.tolist() == [0, 5, 11, 16, 22, 27, 33, 39]


def test_v06_sampling_without_what_it_needs() -> None:
    for processor in both(**SIZES):
        with pytest.raises(ValueError, match="no video metadata was provided"):
            processor(clip(), do_sample_frames=True)
        with pytest.raises(TypeError):
            processor(
                clip(), do_sample_frames=True, num_frames=4, fps=1, video_metadata={"total_num_frames": 5, "fps": 5}
            )
        with pytest.raises(TypeError):
            processor(clip(), do_sample_frames=True, video_metadata={"total_num_frames": 5, "fps": 5, "duration": 1})


def test_v07_one_metadata_entry_for_each_clip() -> None:
    for processor in both(**SIZES):
        with pytest.raises(ValueError, match="Received 2 videos but 1 `video_metadata` entries"):
            processor([clip(), clip()], video_metadata=[{"total_num_frames": 5}])


def test_v08_max_image_size_of_a_call_is_not_read() -> None:
    assert check(clip(), max_image_size={"longest_edge": 64})["pixel_values"].shape[-1] == 128


@pytest.mark.parametrize("with_size", [True, False])
def test_v09_video_sampling_and_size(with_size: bool) -> None:
    settings: dict[str, Any] = {
        "video_sampling": {"max_frames": 64, "fps": 1, "video_size": {"longest_edge": 256}},
        "max_image_size": {"longest_edge": 128},
    }
    if with_size:
        settings["size"] = {"longest_edge": 640}
    given = copy.deepcopy(settings)
    ours = SmolVLMVideoProcessor(**given)
    assert given == settings  # the caller's settings are left alone
    theirs = transformers.SmolVLMVideoProcessor(**copy.deepcopy(settings))
    for name in ("size", "num_frames", "fps", "do_sample_frames", "video_sampling"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert type(ours.size) is type(theirs.size)
    assert ours.to_json_string() == theirs.to_json_string()
    check(clip(), copy.deepcopy(settings))


def test_v10_sizes_that_cannot_be_used() -> None:
    for processor in both(**SIZES):
        with pytest.raises(ValueError, match="Size must contain 'height' and 'width' keys, or 'longest_edge' key"):
            processor(clip(), size={"shortest_edge": 100})


def test_v11_a_path_is_decoded(tmp_path: Any) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=20)
    got = SmolVLMVideoProcessor(**SIZES)(str(path), do_sample_frames=True, num_frames=4, fps=8, return_tensors="pt")
    assert tuple(got["pixel_values"].shape) == (1, 4, 3, 128, 128)


@pytest.mark.parametrize("shape", [(72, 128), (333, 777), (1, 1000), (1000, 1), (37, 91), (3, 2)])
@pytest.mark.parametrize("edge", [128, 512, 5000])
def test_v12_sizes(shape: tuple[int, int], edge: int) -> None:
    if edge == 5000 and max(shape) / min(shape) < 3:
        pytest.skip("4096 × 4096 on both sides takes long and tells nothing new")
    video = clip(2, *shape) if min(shape) > 3 else np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    call: dict[str, Any] = {"size": {"longest_edge": edge}}
    if 3 in shape:
        call["input_data_format"] = "channels_last"
    check(video, **call)


@pytest.mark.parametrize(
    "call",
    [
        {"size": {"height": 100, "width": 60}},
        {"resample": 2},
        {"resample": 3},
        {"resample": 0},
        {"do_resize": False},
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"do_rescale": False, "do_normalize": False, "do_resize": False},
        {"return_tensors": None},
        {"return_tensors": "np"},
        {"do_pad": False, "return_tensors": None},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    ],
)
def test_settings_of_a_call(call: dict[str, Any]) -> None:
    check(clip(), **call)
    check([clip(), clip(3, seed=1)], **{"return_tensors": None, **call})


@pytest.mark.parametrize("kind", ["float32", "int32", "int64", "float64"])
def test_other_types_go_through_the_reference_arithmetic(kind: str) -> None:
    ours, theirs = both(**SIZES)
    video = clip().astype(kind)
    mine, other = (side(video, return_tensors="pt")["pixel_values"].float() for side in (ours, theirs))
    off = (mine - other).abs()
    if kind.startswith("int"):
        # Resized in float32 and rounded: sums that end within a rounding error of one half may round to either side.
        assert off.max() <= 1.01 / 127.5
        assert (off > 4e-6).float().mean() < 1e-4
    else:
        assert off.max() <= 4e-6


def test_v13_metadata() -> None:
    ours, theirs = both(**SIZES)
    for call in (
        {},
        {"video_metadata": {"total_num_frames": 5, "fps": 10.0, "duration": 0.5, "frames_indices": [0, 1, 2, 3, 4]}},
    ):
        mine = ours(clip(), return_metadata=True, **copy.deepcopy(call))["video_metadata"]
        other = theirs(clip(), return_metadata=True, **copy.deepcopy(call))["video_metadata"]
        assert [dict(entry) for entry in mine] == [dict(entry) for entry in other]
        if call:
            assert mine[0].timestamps == other[0].timestamps
            assert mine[0].sampled_fps == other[0].sampled_fps


def test_wrong_arguments() -> None:
    from huggingface_hub.errors import StrictDataclassFieldValidationError

    ours = SmolVLMVideoProcessor(**SIZES)
    with pytest.raises(TypeError, match="colour"):
        ours(clip(), colour=True)
    with pytest.raises(StrictDataclassFieldValidationError):
        ours(clip(), do_resize="yes")
    with pytest.raises(ValueError, match="no video in the input"):
        ours([])
    with pytest.raises(ValueError, match="one size"):
        ours([clip(1)[0], clip(1, height=50)[0]])


@pytest.mark.parametrize("name", ["256m", "2.2b"])
def test_settings_of_the_hub(config_dir: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    ours = SmolVLMVideoProcessor.from_pretrained(config_dir(name))
    theirs = transformers.SmolVLMVideoProcessor.from_pretrained(config_dir(name))
    assert ours.to_dict() == theirs.to_dict()
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    file = "video_preprocessor_config.json"
    assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()
    assert SmolVLMVideoProcessor.from_pretrained(tmp_path / "theirs").to_dict() == theirs.to_dict()
    video = clip(2, 90, 160)
    mine, other = (side(video, return_tensors="pt")["pixel_values"] for side in (ours, theirs))
    assert torch.equal(mine, other)
