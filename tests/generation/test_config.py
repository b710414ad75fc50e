"""`GenerationConfig`: files, defaults, what wins, and what is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faster_smolvlm
import pytest
import transformers
from faster_smolvlm.generation import GenerationConfig
from faster_smolvlm.generation.config import lengths, resolve

pytestmark = pytest.mark.parity


def test_arguments_win_over_the_given_config_over_the_models() -> None:
    model = GenerationConfig(eos_token_id=7, top_k=3, temperature=0.5, pad_token_id=2)
    given = transformers.GenerationConfig(top_k=4, temperature=0.6, do_sample=True)
    config = resolve({"temperature": 0.9}, given, model)
    assert (config.temperature, config.top_k, config.eos_ids, config.do_sample) == (0.9, 4, [7], True)
    assert (config.top_p, config.use_cache, config.num_return_sequences) == (1.0, True, 1)
    assert resolve({"eos_token_id": None, "top_k": None}, given, model).eos_ids == [], "None turns a setting off"
    assert model.temperature == 0.5, "the model's own config stays as it is"


@pytest.mark.parametrize("given", [GenerationConfig(top_k=9), {"top_k": 9}, transformers.GenerationConfig(top_k=9)])
def test_a_config_comes_in_any_of_three_kinds(given: Any) -> None:
    assert resolve({"do_sample": True}, given, GenerationConfig()).top_k == 9


def test_no_config_at_all() -> None:
    with pytest.raises(TypeError, match="GenerationConfig"):
        resolve({}, 3, GenerationConfig())


@pytest.mark.parametrize("name", ["max_new_token", "temprature", "foo"])
def test_unknown_arguments_are_errors(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        resolve({name: 1}, None, GenerationConfig())


@pytest.mark.parametrize(
    ("name", "value", "off"),
    [
        ("typical_p", 0.9, 1.0),
        ("suppress_tokens", [3], None),
        ("renormalize_logits", True, False),
        ("cache_implementation", "quantized", "static"),
        ("prefix_allowed_tokens_fn", len, None),
    ],
)
def test_settings_that_are_not_here_are_errors_unless_off(name: str, value: Any, off: Any) -> None:
    resolve({name: off}, None, GenerationConfig())
    with pytest.raises(NotImplementedError, match=name):
        resolve({name: value}, None, GenerationConfig())
    with pytest.raises(NotImplementedError, match=name):
        resolve({}, None, GenerationConfig.from_dict({name: value}))


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 2.5},
        {"max_new_tokens": True},
        {"max_length": -1},
        {"min_new_tokens": -1},
        {"num_beams": 0},
        {"top_k": -3},
        {"num_return_sequences": 2},
        {"num_return_sequences": 4, "num_beams": 3},
    ],
)
def test_values_that_make_no_sense_are_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        resolve(settings, None, GenerationConfig())


def test_sampling_settings_of_a_greedy_call_are_a_warning() -> None:
    with pytest.warns(UserWarning, match="temperature"):
        resolve({"temperature": 0.3}, None, GenerationConfig())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_new_tokens": 7}, (7, 0)),
        ({"max_new_tokens": 7, "max_length": 12}, (7, 0)),
        ({"max_length": 12}, (2, 0)),
        ({"max_length": 12, "min_length": 11}, (2, 1)),
        ({"max_new_tokens": 9, "min_new_tokens": 4, "min_length": 99}, (9, 4)),
        ({"max_new_tokens": 9, "min_length": 3}, (9, 0)),
    ],
)
def test_lengths(settings: dict[str, Any], expected: tuple[int, int]) -> None:
    assert lengths(GenerationConfig(**settings), prompt_length=10) == expected


def test_default_length_and_a_max_length_without_room() -> None:
    with pytest.warns(UserWarning, match="max_new_tokens"):
        assert lengths(GenerationConfig(), prompt_length=10) == (20, 0)
    with pytest.raises(ValueError, match="max_length"):
        lengths(GenerationConfig(max_length=10), prompt_length=10)


def test_files(tmp_path: Path, config_dir: Callable[[str], Path]) -> None:
    config = GenerationConfig.from_pretrained(config_dir("256m"))
    assert (config.bos_token_id, config.eos_ids, config.pad_token_id) == (0, [49279], 2)
    config.save_pretrained(tmp_path / "new")
    stored = json.loads((tmp_path / "new" / "generation_config.json").read_text())
    assert stored == json.loads((config_dir("256m") / "generation_config.json").read_text())
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "new").eos_token_id == 49279


def test_broken_files_are_errors_that_name_them(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"generation_config\.json"):
        GenerationConfig.from_pretrained(tmp_path)
    for text in ("{", "[1]"):
        (tmp_path / "generation_config.json").write_text(text)
        with pytest.raises(OSError, match=r"generation_config\.json"):
            GenerationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ({"eos_token_id": [5, 6]}, {}),
        ({"eos_token_id": 5}, {"eos_token_id": None}),
        ({"eos_token_id": None}, {"eos_token_id": 7}),
        ({"pad_token_id": 9, "bos_token_id": 8}, {"pad_token_id": 4}),
        ({"do_sample": True, "max_length": 30}, {"top_k": 7}),
    ],
)
@pytest.mark.parametrize("name", ["SmolVLMConfig", "Idefics3Config"])
def test_the_ids_of_a_model_config_are_those_of_transformers(
    name: str, outer: dict[str, Any], inner: dict[str, Any]
) -> None:
    values = {**outer, "text_config": {"model_type": "llama", "pad_token_id": 2, **inner}}
    theirs = transformers.GenerationConfig.from_model_config(getattr(transformers, name)(**values))
    ours = GenerationConfig.from_model_config(getattr(faster_smolvlm, name)(**values))
    names = ("eos_token_id", "bos_token_id", "pad_token_id", "do_sample", "max_length", "top_k")
    assert [getattr(ours, n) for n in names] == [getattr(theirs, n) for n in names]
