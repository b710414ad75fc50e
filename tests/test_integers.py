"""Integers and numbers of callers: Python's, NumPy's and torch's are the same to every argument that takes one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import SmolVLMImageProcessor, SmolVLMVideoProcessor
from faster_smolvlm.generation import GenerationConfig
from faster_smolvlm.generation import logits as ours
from faster_smolvlm.generation.config import resolve
from faster_smolvlm.generation.sampling import make_generator
from faster_smolvlm.integers import as_float, as_int, count_of
from faster_smolvlm.media import FrameSampling, MediaPolicy
from faster_smolvlm.native import NativeSmolVLM
from faster_smolvlm.text.call_options import checked_length

FIVES = [np.int64(5), np.uint8(5), np.array(5), torch.tensor(5), torch.tensor(5, dtype=torch.int8)]
NO_INTEGERS: list[Any] = [
    True, np.bool_(True), torch.tensor(True), "5", b"5", np.str_("5"), 5.5, np.float32(5.5), float("nan"), float("inf"),
    None, [5], np.array([5]), torch.tensor([5]), torch.tensor(5, device="meta"), 5j, np.complex64(5), object(),
]  # fmt: skip


@pytest.mark.parametrize("five", [5, *FIVES])
def test_integers_of_all_libraries(five: Any) -> None:
    for found in (as_int(five), as_int(five, floats=True), count_of("x", five, 5)):
        assert (found, type(found)) == (5, int)
    assert as_float(five) == 5.0


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_what_is_no_integer(value: Any) -> None:
    assert as_int(value) is None
    assert as_int(value, floats=True) is None


def test_whole_floats_are_integers_only_if_asked() -> None:
    for value in (5.0, np.float32(5), torch.tensor(5.0)):
        assert as_int(value) is None
        assert as_int(value, floats=True) == 5


def test_numbers() -> None:
    assert [as_float(value) for value in (2, 0.5, np.float32(0.5), torch.tensor(0.5), np.array(2))] == [
        2, 0.5, 0.5, 0.5, 2,
    ]  # fmt: skip
    assert all(as_float(value) is None for value in (True, "1", np.str_("1"), [1.0], torch.tensor([1.0]), 10**400, 1j))


def test_the_error_names_the_argument_and_is_short() -> None:
    with pytest.raises(ValueError, match="window must be an integer of at least 1, got 'x") as caught:
        count_of("window", "x" * 100_000, 1)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("five", FIVES)
@pytest.mark.parametrize(
    "name",
    ["max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams", "top_k", "no_repeat_ngram_size",
     "prompt_lookup_num_tokens", "pad_token_id", "bos_token_id", "eos_token_id"],
)  # fmt: skip
def test_every_setting_of_a_generation(name: str, five: Any) -> None:
    config = resolve({name: five, "do_sample": True}, None, GenerationConfig())
    found = getattr(config, name)
    assert (found, type(found)) == (5, int)


@pytest.mark.parametrize("name", ["max_length", "max_new_tokens"])
def test_whole_floats_where_transformers_takes_them(name: str) -> None:
    for value in (5.0, np.float32(5), torch.tensor(5.0)):
        assert getattr(resolve({name: value}, None, GenerationConfig()), name) == 5
    for other in ("num_beams", "top_k"):
        with pytest.raises(ValueError, match=other):
            resolve({other: 5.0, "do_sample": True}, None, GenerationConfig())


@pytest.mark.parametrize("ids", [[np.int64(5), 6], (5, 6), np.array([5, 6]), torch.tensor([5, 6])])
def test_lists_of_end_tokens(ids: Any) -> None:
    config = resolve({"eos_token_id": ids}, None, GenerationConfig())
    assert config.eos_token_id == config.eos_ids == [5, 6]


@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token_id": [[511]]},
        {"eos_token_id": "511"},
        {"eos_token_id": torch.tensor([[511]])},
        {"eos_token_id": [None]},
        {"pad_token_id": "x"},
        {"pad_token_id": [1]},
        {"max_time": "x"},
        {"max_time": float("nan")},
        {"max_time": [1.0]},
        {"stop_strings": 5},
        {"stop_strings": b"left"},
        {"stop_strings": ["left", 5]},
        {"stop_strings": {"left": 1}},
        {"length_penalty": "x"},
        {"max_new_tokens": "5"},
        {"max_new_tokens": torch.tensor([5])},
        {"top_k": "50"},
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` has to be"):
        resolve(settings, None, GenerationConfig())


@pytest.mark.parametrize("half", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_numbers_of_the_processors(half: Any) -> None:
    assert ours.TemperatureLogitsWarper(half).temperature == 0.5
    assert ours.TopPLogitsWarper(half).top_p == 0.5
    assert ours.MinPLogitsWarper(half).min_p == 0.5
    assert ours.RepetitionPenaltyLogitsProcessor(half).penalty == 0.5
    assert resolve({"max_time": half}, None, GenerationConfig()).max_time == 0.5


def test_seeds() -> None:
    for like in (np.zeros(1), torch.zeros(1)):
        for seed in (5, np.int64(5), torch.tensor(5)):
            assert make_generator(like, seed, None) is not None
        for wrong in (-1, "5", 1.5, True):
            with pytest.raises(ValueError, match="`seed` has to be an integer of at least 0"):
                make_generator(like, wrong, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"num_threads": "2"},
        {"num_threads": 2.0},
        {"num_threads": 0},
        {"num_threads": True},
        {"position_limit": "x"},
        {"position_limit": 0},
        {"cache_positions": 1.5},
        {"feature_cache_bytes": None},
        {"prefix_cache_bytes": "1 GB"},
    ],
)
def test_options_of_the_native_model(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"{name} must be an integer"):
        NativeSmolVLM.from_pretrained("demo", **options)


def test_numpy_options_of_the_native_model() -> None:
    model = NativeSmolVLM.from_pretrained(
        "demo", num_threads=np.int64(1), position_limit=np.int64(300), cache_positions=torch.tensor(640)
    )
    assert (model.num_threads, model.position_limit) == (1, 300)


def test_media_and_tokenizer() -> None:
    for five in FIVES:
        assert MediaPolicy(max_bytes=five).max_bytes == 5
        assert MediaPolicy(decode_timeout=five).decode_timeout == 5.0
        assert FrameSampling.uniform(five) == FrameSampling.uniform(5)
        assert FrameSampling.rate(five, five) == FrameSampling.rate(5, 5)
        assert checked_length("max_length", five) == 5
    for wrong in ("5", True, 1.5):
        with pytest.raises(ValueError, match="max_frames has to be an integer above 0"):
            FrameSampling.uniform(wrong)  # type: ignore[arg-type]


PICTURE = np.zeros((40, 60, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"size": {"longest_edge": np.int64(64)}}, {"size": {"longest_edge": 64}}),
        ({"size": [np.int64(64), torch.tensor(32)], "do_image_splitting": False}, {"size": [64, 32]}),
        ({"size": np.int64(64), "max_tiles": np.int64(1)}, {"size": 64, "max_tiles": 1}),
        ({"resample": np.int64(3), "rescale_factor": np.float32(0.5)}, {"resample": 3, "rescale_factor": 0.5}),
        ({"image_mean": [np.float32(0.25)] * 3}, {"image_mean": [0.25] * 3}),
    ],
)
def test_settings_of_pictures(given: dict[str, Any], plain: dict[str, Any]) -> None:
    small: dict[str, Any] = {"max_image_size": {"longest_edge": 32}, "size": {"longest_edge": 64}}
    plain = {**given, **plain}
    expected = SmolVLMImageProcessor(**small)(PICTURE, return_tensors="np", **plain)["pixel_values"]
    for found in (
        SmolVLMImageProcessor(**small)(PICTURE, return_tensors="np", **given),
        SmolVLMImageProcessor(**{**small, **given})(PICTURE, return_tensors="np"),
    ):
        np.testing.assert_array_equal(found["pixel_values"], expected)


def test_settings_of_clips() -> None:
    clip = np.zeros((12, 32, 32, 3), np.uint8)
    processor = SmolVLMVideoProcessor(threads=np.int64(1), size={"longest_edge": np.int64(64)})
    plain: dict[str, Any] = {"num_frames": 4, "fps": 2.0}
    given = {"num_frames": np.int64(4), "fps": np.float32(2.0)}
    metadata = [{"fps": 4.0, "duration": 3.0, "total_num_frames": 12}]
    options: dict[str, Any] = {"do_sample_frames": True, "video_metadata": metadata, "return_tensors": "np"}
    found = processor([clip], **given, **options)["pixel_values"]
    np.testing.assert_array_equal(found, processor([clip], **plain, **options)["pixel_values"])
    assert found.shape[1] == 4
