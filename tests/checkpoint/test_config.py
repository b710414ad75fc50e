"""The configs against Transformers: C01, and what strangers may put into a config.json."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from faster_smolvlm import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMTextConfig,
    SmolVLMVisionConfig,
)
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError

from tests.helpers.tiny_models import tiny_config

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread", "no_gradients")]

SIZES = {"256m": 256_484_928, "500m": 507_482_304, "2.2b": None}
OTHERWISE = {"dtype", "transformers_version"}  # a torch.dtype there, its name here; that of the writer


def assert_same_fields(ours, theirs):
    """Every field and kept key of ours has the value that Transformers has."""
    for name, value in vars(ours).items():
        expected = getattr(theirs, name)
        if name in ("text_config", "vision_config"):
            assert_same_fields(value, expected)
        elif name not in OTHERWISE:
            assert value == expected, name
    assert ours.dtype == (None if theirs.dtype is None else str(theirs.dtype).removeprefix("torch."))


@pytest.mark.parametrize("size", SIZES)
def test_c01_hub_configs(config_dir, tmp_path, size):
    directory = config_dir(size)
    theirs, ours = transformers.SmolVLMConfig.from_pretrained(directory), SmolVLMConfig.from_pretrained(directory)
    assert_same_fields(ours, theirs)
    raw = json.loads((directory / "config.json").read_text())
    lost = {name for name in raw if name not in ours.to_dict()} - {"torch_dtype", "pad_token_id"}
    assert not lost
    assert ours.text_config.rope_theta == raw["text_config"]["rope_theta"]
    assert ours.text_config.perceiver_config == raw["text_config"]["perceiver_config"]

    ours.save_pretrained(tmp_path)
    assert SmolVLMConfig.from_pretrained(tmp_path) == ours
    assert transformers.SmolVLMConfig.from_pretrained(tmp_path).to_dict() == theirs.to_dict()
    theirs.save_pretrained(tmp_path)
    assert_same_fields(SmolVLMConfig.from_pretrained(tmp_path), theirs)


@pytest.mark.parametrize("size", SIZES)
def test_c02_names_and_shapes_of_the_real_sizes(config_dir, size):
    """On the meta device: nothing of the 9 GB of the largest is allocated."""
    directory = config_dir(size)
    with torch.device("meta"):
        ours = SmolVLMForConditionalGeneration(SmolVLMConfig.from_pretrained(directory))
        theirs = transformers.SmolVLMForConditionalGeneration(transformers.SmolVLMConfig.from_pretrained(directory))
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert ours.num_parameters() == theirs.num_parameters()
    if SIZES[size] is not None:
        assert ours.num_parameters() == SIZES[size]


def test_defaults():
    theirs = transformers.SmolVLMConfig()
    assert_same_fields(SmolVLMConfig(), theirs)
    assert_same_fields(SmolVLMVisionConfig(), transformers.SmolVLMVisionConfig())
    assert_same_fields(SmolVLMTextConfig(), transformers.LlamaConfig())


@pytest.mark.parametrize(
    ("ours", "theirs", "fields"),
    [
        (SmolVLMVisionConfig, transformers.SmolVLMVisionConfig, {"hidden_size": "wide"}),
        (SmolVLMVisionConfig, transformers.SmolVLMVisionConfig, {"hidden_size": 32.0}),
        (SmolVLMVisionConfig, transformers.SmolVLMVisionConfig, {"hidden_size": True}),
        (SmolVLMVisionConfig, transformers.SmolVLMVisionConfig, {"layer_norm_eps": 1}),
        (SmolVLMVisionConfig, transformers.SmolVLMVisionConfig, {"hidden_act": 3}),
        (SmolVLMVisionConfig, transformers.SmolVLMVisionConfig, {"image_size": None}),
        (SmolVLMTextConfig, transformers.LlamaConfig, {"eos_token_id": ["a"]}),
        (SmolVLMTextConfig, transformers.LlamaConfig, {"use_cache": "yes"}),
        (SmolVLMConfig, transformers.SmolVLMConfig, {"scale_factor": "two"}),
        (SmolVLMConfig, transformers.SmolVLMConfig, {"text_config": 3}),
        (SmolVLMConfig, transformers.SmolVLMConfig, {"text_config": {"hidden_size": "wide"}}),
        (SmolVLMConfig, transformers.SmolVLMConfig, {"vision_config": [1]}),
    ],
)
def test_wrong_types(ours, theirs, fields):
    name = next(iter(fields["text_config"])) if isinstance(fields.get("text_config"), dict) else next(iter(fields))
    for config in (theirs, ours):
        with pytest.raises(StrictDataclassFieldValidationError, match=name):
            config(**fields)


def test_wrong_type_set_later():
    config = SmolVLMTextConfig()
    with pytest.raises(StrictDataclassFieldValidationError, match="vocab_size"):
        config.vocab_size = "many"


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (SmolVLMTextConfig, {"hidden_size": 33}, "not a multiple of the number of attention heads"),
        (SmolVLMTextConfig, {"num_key_value_heads": 5}, "key-value heads"),
        (SmolVLMTextConfig, {"head_dim": 7}, "must be even"),
        (SmolVLMTextConfig, {"num_hidden_layers": 10**9}, "at most 1024"),
        (SmolVLMTextConfig, {"rope_theta": "x"}, "rope_theta must be a positive number"),
        (SmolVLMTextConfig, {"initializer_range": 3.0}, "initializer_range"),
        (SmolVLMVisionConfig, {"hidden_size": 33}, "not a multiple of the number of attention heads"),
        (SmolVLMVisionConfig, {"image_size": 16}, "patch size"),
    ],
)
def test_contradictions(config, fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        config(**fields)


@pytest.mark.parametrize("fields", [{"num_hidden_layers": 0}, {"hidden_size": -4}, {"num_key_value_heads": 0}])
def test_sizes_are_positive(fields):
    with pytest.raises(StrictDataclassFieldValidationError, match="positive integer"):
        SmolVLMTextConfig(**fields)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="model_type 'gpt2'"):
        SmolVLMConfig(text_config={"model_type": "gpt2"})
    with pytest.raises(ValueError, match="model_type 'llava'"):
        SmolVLMConfig.from_dict({"model_type": "llava"})
    assert SmolVLMConfig.from_dict({"model_type": "idefics3"}).model_type == "smolvlm"


def test_rope_types_that_are_not_there_are_refused():
    config = SmolVLMConfig(**tiny_config())
    config.text_config.rope_parameters = {"rope_type": "yarn", "rope_theta": 1e4}
    with pytest.raises(ValueError, match="rope_type 'yarn' is not supported"):
        SmolVLMForConditionalGeneration(config)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"config"', b"\xff\xfe"])
def test_config_that_is_no_json_object(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(OSError, match=r"config\.json"):
        SmolVLMConfig.from_pretrained(tmp_path)


def test_missing_config(tmp_path):
    with pytest.raises(OSError, match=r"does not have a file named 'config.json'"):
        SmolVLMConfig.from_pretrained(tmp_path)


def test_given_dict_is_not_changed():
    given = tiny_config()
    SmolVLMConfig.from_dict(given)
    assert given == tiny_config()
