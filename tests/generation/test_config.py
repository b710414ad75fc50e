"""`GenerationConfig`: files, defaults, what wins, and what is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faster_smolvlm
import numpy as np
import pytest
import torch
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
        ("guidance_scale", 1.5, 1.0),
        ("sequence_bias", [[[3], 1.0]], None),
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


def test_a_file_that_sets_what_is_not_here_is_named(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"exponential_decay_length_penalty": [1, 2.0], "top_k": "x"}))
    file = GenerationConfig.from_file(path)
    with pytest.raises(NotImplementedError, match="exponential_decay_length_penalty=None") as found:
        resolve({}, None, file)
    assert str(path) in str(found.value)
    off = {"exponential_decay_length_penalty": None}
    with pytest.raises(ValueError, match="`top_k` has to be an integer") as odd:
        resolve(off, None, file)
    assert str(path) in str(odd.value)
    with pytest.raises(ValueError, match="`top_k` has to be") as own:
        resolve({**off, "top_k": "y"}, None, file)
    assert str(path) not in str(own.value)
    assert resolve({**off, "top_k": 3}, None, file).top_k == 3
    given = transformers.GenerationConfig(top_k=3)  # its settings that are None leave the file's on
    with pytest.raises(NotImplementedError, match="exponential_decay_length_penalty"):
        resolve({}, given, file)


@pytest.mark.parametrize(
    ("setting", "call"),
    [
        ({"typical_p": 0.9}, {"do_sample": True}),
        ({"top_h": 0.5}, {"do_sample": True}),
        ({"diversity_penalty": 0.5}, {"num_beams": 2}),
        ({"output_attentions": True}, {"return_dict_in_generate": True}),
    ],
)
def test_a_file_may_set_what_changes_nothing_about_the_call(
    tmp_path: Path, setting: dict[str, Any], call: dict[str, Any]
) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(setting))
    file = GenerationConfig.from_file(path)
    resolve({}, None, file)
    with pytest.raises(NotImplementedError, match=next(iter(setting))):
        resolve(call, None, file)
    with pytest.raises(NotImplementedError, match=next(iter(setting))):
        resolve(setting, None, GenerationConfig())


def test_an_array_for_a_setting_that_is_not_here_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="negative_prompt_ids"):
        resolve({"negative_prompt_ids": np.array([1, 2])}, None, GenerationConfig())


@pytest.mark.parametrize(
    "given",
    [[3, 5], (3, 5), {3, 5}, np.array([3, 5]), torch.tensor([3, 5]), [3.0, 5.0, 6.5], [np.int64(3), torch.tensor(5)]],
    ids=str,
)
@pytest.mark.parametrize("name", ["suppress_tokens", "begin_suppress_tokens"])
def test_lists_of_tokens_come_in_many_kinds(name: str, given: Any) -> None:
    assert getattr(resolve({name: given}, None, GenerationConfig()), name) == [3, 5]


@pytest.mark.parametrize("name", ["suppress_tokens", "begin_suppress_tokens"])
@pytest.mark.parametrize(
    ("given", "error"), [(5, TypeError), ("35", ValueError), ([None], ValueError), (["a"] * 9999, ValueError)], ids=str
)
def test_what_is_no_list_of_tokens_is_an_error_as_in_transformers(name: str, given: Any, error: type) -> None:
    with pytest.raises(error, match=name) as found:
        resolve({name: given}, None, GenerationConfig())
    assert len(str(found.value)) < 400


BAD_WORDS = [5, "ab", [], [5], ((3,),), [(3,)], np.array([[3]]), [[3.0]], [[-1]], [["a"]], [[torch.tensor(3)]]]


@pytest.mark.parametrize("given", BAD_WORDS, ids=str)
def test_bad_words_that_are_no_lists_are_errors_as_in_transformers(given: Any) -> None:
    with pytest.raises(ValueError, match="bad_words_ids"):
        transformers.NoBadWordsLogitsProcessor(given, torch.tensor([2]))
    with pytest.raises(ValueError, match="bad_words_ids"):
        resolve({"bad_words_ids": given}, None, GenerationConfig())


def test_the_error_for_many_bad_words_is_short() -> None:
    with pytest.raises(ValueError, match="bad_words_ids") as found:
        resolve({"bad_words_ids": [[-token] for token in range(9999)]}, None, GenerationConfig())
    assert len(str(found.value)) < 400


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
