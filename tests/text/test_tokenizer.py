"""`SmolVLMTokenizer` against Transformers' TokenizersBackend."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm.text.tokenization_smolvlm import SmolVLMTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.parity

TEXTS = ["Hello, world!", "", " two  spaces ", "<|im_start|>User:<image>12345<end_of_utterance>\n", "été 🙂\r\n\t"]

ATTRIBUTES = [
    "bos_token",
    "bos_token_id",
    "eos_token",
    "eos_token_id",
    "pad_token",
    "pad_token_id",
    "unk_token",
    "unk_token_id",
    "sep_token",
    "cls_token_id",
    "image_token",
    "image_token_id",
    "fake_image_token",
    "fake_image_token_id",
    "global_image_token",
    "global_image_token_id",
    "end_of_utterance_token",
    "end_of_utterance_token_id",
    "all_special_ids",
    "all_special_tokens",
    "special_tokens_map",
    "extra_special_tokens",
    "padding_side",
    "truncation_side",
    "model_max_length",
    "vocab_size",
    "is_fast",
]


@pytest.fixture(scope="module")
def pair(checkpoint_dir: Path) -> tuple[SmolVLMTokenizer, Any]:
    return (
        SmolVLMTokenizer.from_pretrained(checkpoint_dir),
        transformers.AutoTokenizer.from_pretrained(checkpoint_dir),
    )


@pytest.fixture(scope="module")
def small_pair(small_checkpoint: Path) -> tuple[SmolVLMTokenizer, Any]:
    return (
        SmolVLMTokenizer.from_pretrained(small_checkpoint),
        transformers.AutoTokenizer.from_pretrained(small_checkpoint),
    )


def assert_same(ours: Any, reference: Any) -> None:
    assert list(ours) == list(reference)
    for key in reference:
        assert type(ours[key]) is type(reference[key]), key
        if isinstance(reference[key], list):
            assert ours[key] == reference[key], key
        else:
            assert ours[key].dtype == reference[key].dtype
            np.testing.assert_array_equal(ours[key], reference[key])


def test_attributes(pair: tuple[SmolVLMTokenizer, Any]) -> None:
    ours, reference = pair
    assert len(ours) == len(reference)
    for name in ATTRIBUTES:
        assert getattr(ours, name) == getattr(reference, name), name
    assert ours.get_vocab() == reference.get_vocab()
    assert ours.get_added_vocab() == reference.get_added_vocab()
    with pytest.raises(AttributeError, match="no_such_token"):
        _ = ours.no_such_token


@pytest.mark.parametrize("source", ["blns.json", "edge_cases.json", "code.json", "multilingual.jsonl"])
def test_texts_of_the_test_data(source: str, data_dir: Path, real_checkpoint: Callable[[str], Path]) -> None:
    folder = real_checkpoint("256m")
    ours, reference = SmolVLMTokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    texts = _texts(data_dir / "text" / source)
    assert texts
    expected = reference(texts)["input_ids"]
    assert ours(texts)["input_ids"] == expected
    assert ours.encode_rows(texts) == expected
    for skip in (False, True):
        assert ours.batch_decode(expected, skip_special_tokens=skip) == reference.batch_decode(
            expected, skip_special_tokens=skip
        )


def test_golden_ids(data_dir: Path, real_checkpoint: Callable[[str], Path]) -> None:
    ours = SmolVLMTokenizer.from_pretrained(real_checkpoint("256m"))
    records = [json.loads(line) for line in (data_dir / "text" / "golden_ids.jsonl").open(encoding="utf-8")]
    assert len(records) > 100
    texts = {source: _texts(data_dir / "text" / source) for source in {record["src"] for record in records}}
    for record in records:
        text = texts[record["src"]][record["i"]]
        assert ours(text)["input_ids"] == record["ids"]
        assert ours.decode(record["ids"]) == record.get("decoded", text)


def _texts(path: Path) -> list[str]:
    if path.suffix == ".jsonl":
        items = [json.loads(line) for line in path.open(encoding="utf-8")]
    else:
        items = json.loads(path.read_text(encoding="utf-8"))
    return [item if isinstance(item, str) else item["text"] for item in items]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": True},
        {"padding": "longest", "padding_side": "left", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 40},
        {"padding": "max_length"},
        {"padding": True, "truncation": True, "max_length": 7},
        {"max_length": 5},
        {"truncation": "only_first", "max_length": 3},
        {"truncation": True},
        {"padding": True, "return_tensors": "pt"},
        {"padding": True, "return_tensors": "np", "return_attention_mask": False},
        {"add_special_tokens": False, "return_length": True},
        {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True},
        {"padding": True, "return_offsets_mapping": True, "return_special_tokens_mask": True},
    ],
)
def test_call(options: dict[str, Any], small_pair: tuple[SmolVLMTokenizer, Any]) -> None:
    ours, reference = small_pair
    assert_same(ours(TEXTS, **options), reference(TEXTS, **options))
    for text in TEXTS:
        assert_same(ours(text, **options), reference(text, **options))


def test_sides_change_after_loading(small_checkpoint: Path) -> None:
    ours = SmolVLMTokenizer.from_pretrained(small_checkpoint)
    reference = transformers.AutoTokenizer.from_pretrained(small_checkpoint)
    for tokenizer in (ours, reference):
        tokenizer.padding_side, tokenizer.truncation_side = "left", "right"
        tokenizer.pad_token = "<|endoftext|>"
    options = {"padding": True, "truncation": True, "max_length": 6}
    assert_same(ours(TEXTS, **options), reference(TEXTS, **options))
    ours.pad_token_id = 2
    assert ours.pad_token == "<|im_end|>"


def test_pad(small_pair: tuple[SmolVLMTokenizer, Any]) -> None:
    ours, reference = small_pair
    rows = {"input_ids": [[1, 2, 3], [4]]}
    for options in ({}, {"padding_side": "left", "pad_to_multiple_of": 4}, {"padding": "max_length", "max_length": 5}):
        assert_same(ours.pad(copy.deepcopy(rows), **options), reference.pad(copy.deepcopy(rows), **options))
        tensors = {**options, "return_tensors": "pt"}
        assert_same(ours.pad(copy.deepcopy(rows), **tensors), reference.pad(copy.deepcopy(rows), **tensors))
    features = [
        {"input_ids": torch.tensor([5, 6]), "attention_mask": torch.tensor([1, 1])},
        {"input_ids": torch.tensor([7]), "attention_mask": torch.tensor([1])},
    ]
    assert_same(ours.pad(features), reference.pad(features))
    assert_same(
        ours.pad({"input_ids": [1, 2]}, padding="max_length", max_length=4),
        reference.pad({"input_ids": [1, 2]}, padding="max_length", max_length=4),
    )


def test_decode(small_pair: tuple[SmolVLMTokenizer, Any]) -> None:
    ours, reference = small_pair
    ids = reference(TEXTS[3])["input_ids"]
    for value in (ids, ids[0], torch.tensor(ids), np.array(ids), [ids, ids[:3]], torch.tensor([ids, ids]), []):
        for skip in (False, True):
            expected = reference.decode(value, skip_special_tokens=skip)
            assert ours.decode(value, skip_special_tokens=skip) == expected
            batch = reference.batch_decode(value, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.batch_decode(value, skip_special_tokens=skip, clean_up_tokenization_spaces=False) == batch
    assert ours.convert_ids_to_tokens(ids) == reference.convert_ids_to_tokens(ids)
    assert ours.convert_ids_to_tokens(ids, skip_special_tokens=True) == reference.convert_ids_to_tokens(
        ids, skip_special_tokens=True
    )
    assert ours.convert_tokens_to_ids(["<image>", "nothing like it"]) == reference.convert_tokens_to_ids(
        ["<image>", "nothing like it"]
    )


@settings(max_examples=100, deadline=None)
@given(
    text=st.text() | st.lists(st.sampled_from(["<image>", "\n", " ", "a", "<row_1_col_1>", "7", "\u0301"])).map("".join)
)
def test_arbitrary_text(text: str, small_pair: tuple[SmolVLMTokenizer, Any]) -> None:
    ours, reference = small_pair
    ids = reference(text)["input_ids"]
    assert ours(text)["input_ids"] == ids == ours.encode_rows([text])[0]
    assert ours.encode_rows([text, text])[1] == ids
    assert ours.decode(ids) == reference.decode(ids)


def test_copies(small_pair: tuple[SmolVLMTokenizer, Any]) -> None:
    ours, reference = small_pair
    for copied in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        assert copied(TEXTS)["input_ids"] == reference(TEXTS)["input_ids"]
        copied.padding_side = "left"
        assert ours.padding_side == "right"
        assert copied.special_tokens_map == reference.special_tokens_map


def test_saved_and_loaded_by_either_side(small_pair: tuple[SmolVLMTokenizer, Any], tmp_path: Path) -> None:
    ours, reference = small_pair
    ours.save_pretrained(tmp_path / "ours")
    reference.save_pretrained(tmp_path / "reference")
    loaded = [
        transformers.AutoTokenizer.from_pretrained(tmp_path / "ours"),
        SmolVLMTokenizer.from_pretrained(tmp_path / "ours"),
        SmolVLMTokenizer.from_pretrained(tmp_path / "reference"),
    ]
    for tokenizer in loaded:
        assert tokenizer(TEXTS)["input_ids"] == reference(TEXTS)["input_ids"]
        assert tokenizer.special_tokens_map == reference.special_tokens_map
        assert tokenizer.all_special_ids == reference.all_special_ids
        assert (tokenizer.padding_side, tokenizer.truncation_side) == ("right", "left")


def test_tokens_of_the_config_are_added(small_checkpoint: Path, tmp_path: Path) -> None:
    """A special token that only tokenizer_config.json knows gets the next id, as in Transformers."""
    (tmp_path / "tokenizer.json").write_bytes((small_checkpoint / "tokenizer.json").read_bytes())
    config = json.loads((small_checkpoint / "tokenizer_config.json").read_text())
    config["extra_special_tokens"]["video_token"] = "<a-new-token>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, reference = SmolVLMTokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.video_token_id == reference.video_token_id == len(reference) - 1
    assert ours("x<a-new-token>y")["input_ids"] == reference("x<a-new-token>y")["input_ids"]
    assert ours.add_tokens(["<one-more>"]) == 1
    assert ours.convert_tokens_to_ids("<one-more>") == len(ours) - 1


def test_padding_and_truncation_of_the_file(small_checkpoint: Path, tmp_path: Path) -> None:
    """What tokenizer.json says about padding and truncation is a default of the processor, not of the call."""
    content = json.loads((small_checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = {"max_length": 5, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    content["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    ours, reference = SmolVLMTokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert_same(ours(TEXTS), reference(TEXTS))
    assert ours.pad_token == reference.pad_token
    assert (ours.padding_side, ours.truncation_side) == (reference.padding_side, reference.truncation_side)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda t: t(None), TypeError),
        (lambda t: t([1, 2]), ValueError),
        (lambda t: t("a", padding="sideways"), ValueError),
        (lambda t: t("a", truncation="sideways", max_length=3), ValueError),
        (lambda t: t(["a", "b c d e f"], return_tensors="pt"), ValueError),
        (lambda t: t("a", return_tensors="tf"), ValueError),
        (lambda t: t("a", padding=True, truncation=True, max_length=5, pad_to_multiple_of=4), ValueError),
        (lambda t: t.pad({"attention_mask": [[1]]}), ValueError),
        (lambda t: t.decode([-100]), OverflowError),
    ],
)
def test_bad_arguments(
    call: Callable[[Any], Any], error: type[Exception], small_pair: tuple[SmolVLMTokenizer, Any]
) -> None:
    with pytest.raises(error):
        call(small_pair[0])
    if error is not TypeError:  # Transformers refuses None with a ValueError
        with pytest.raises(error):
            call(small_pair[1])


def test_no_padding_token(small_checkpoint: Path) -> None:
    ours = SmolVLMTokenizer.from_pretrained(small_checkpoint)
    ours.pad_token = None
    assert ours.pad_token_id is None
    with pytest.raises(ValueError, match="does not have a padding token"):
        ours(["a", "b c"], padding=True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', "\udcff"])
def test_broken_files(content: str, small_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(OSError, match=r"tokenizer\.json"):
        SmolVLMTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((small_checkpoint / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    if content == '{"version": "1.0"}':
        assert len(SmolVLMTokenizer.from_pretrained(tmp_path)) > 0
    else:
        with pytest.raises(OSError, match=r"tokenizer_config\.json"):
            SmolVLMTokenizer.from_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"tokenizer\.json"):
        SmolVLMTokenizer.from_pretrained(tmp_path / "..")
