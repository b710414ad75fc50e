"""`SmolVLMProcessor` against Transformers: pictures and text."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from faster_smolvlm.processor.processing_smolvlm import SmolVLMProcessor
from faster_smolvlm.text.tokenization_smolvlm import SmolVLMTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.parity

Pair = tuple[SmolVLMProcessor, Any]


def load_pair(folder: Path) -> Pair:
    return SmolVLMProcessor.from_pretrained(folder), transformers.AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def pair(small_checkpoint: Path) -> Pair:
    return load_pair(small_checkpoint)


def picture(height: int, width: int) -> PIL.Image.Image:
    ramp = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    return PIL.Image.fromarray((ramp % 251).astype(np.uint8))


WIDE, TALL, TINY = picture(40, 100), picture(90, 30), picture(1, 1)


def assert_same(ours: Any, reference: Any) -> None:
    assert list(ours) == list(reference)
    for key, value in reference.items():
        if isinstance(value, (list, tuple)):
            assert ours[key] == value, key
        else:
            assert type(ours[key]) is type(value), key
            assert ours[key].dtype == value.dtype, key
            if value.dtype in (torch.float32, np.float32):
                np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-6)
            else:
                np.testing.assert_array_equal(ours[key], value)


def assert_same_error(call: Callable[[Any], Any], pair: Pair) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever Transformers raises
        call(pair[1])
    with pytest.raises(type(expected.value)) as found:
        call(pair[0])
    assert str(found.value) == str(expected.value)


CALLS: dict[str, dict[str, Any]] = {
    "one": {"text": "<image>hi", "images": WIDE},
    "no split": {"text": "<image>hi", "images": WIDE, "do_image_splitting": False},
    "tall": {"text": "a<image>\n", "images": [TALL]},
    "text between": {"text": "1<image> \n<image>2 ", "images": [WIDE, TINY]},
    "batch": {"text": ["<image>a", "bb<image>c<image>"], "images": [[WIDE], [TALL, TINY]], "padding": True},
    "batch left": {
        "text": ["<image>a", "bb<image>c<image>"],
        "images": [[WIDE], [TALL, TINY]],
        "padding": True,
        "padding_side": "left",
    },
    "without picture": {"text": ["<image>x", "y"], "images": [[WIDE], []], "padding": "longest"},
    "multiple of": {"text": ["<image>x"], "images": WIDE, "padding": True, "pad_to_multiple_of": 16},
    "max length": {"text": ["<image>x"], "images": WIDE, "padding": "max_length", "max_length": 300},
    "types": {"text": ["<image>x", "y"], "images": [[WIDE], []], "padding": True, "return_mm_token_type_ids": True},
    "types in group": {"text": "<image>", "images": TINY, "text_kwargs": {"return_mm_token_type_ids": True}},
    "text only": {"text": "no picture"},
    "texts only": {"text": ["a", "b c d"], "padding": True},
    "pictures only": {"images": [[WIDE], [TALL, TINY]]},
    "array": {"text": "<image>", "images": np.asarray(WIDE)},
    "tensor": {"text": "<image>", "images": torch.from_numpy(np.asarray(TALL)).permute(2, 0, 1)},
    "4-D array": {"text": "<image><image>", "images": np.stack([np.asarray(WIDE)] * 2)},
    "list of 4-D": {"text": ["<image><image>"] * 2, "images": [np.stack([np.asarray(WIDE)] * 2)] * 2},
    "groups": {
        "text": "<image>hi",
        "images": WIDE,
        "images_kwargs": {"do_image_splitting": False, "size": {"longest_edge": 64}},
        "text_kwargs": {"padding": "max_length", "max_length": 30},
    },
    "common": {"text": "<image>hi", "images": WIDE, "common_kwargs": {"return_tensors": "pt"}},
    "seven by five": {"text": "<image>hi", "images": picture(100, 140), "size": {"longest_edge": 7 * 32}},
    "truncated text": {"text": "a long text without a picture", "truncation": True, "max_length": 4},
    "max length cuts": {"text": "a long text without a picture", "max_length": 4},
    "room enough": {"text": "<image>hi", "images": TINY, "truncation": True, "max_length": 200},
    "all options": {
        "text": "<image>hi",
        "images": TINY,
        "return_offsets_mapping": True,
        "return_special_tokens_mask": True,
        "return_length": True,
        "return_token_type_ids": True,
    },
    "special tokens": {
        "text": "<|im_start|><image><row_1_col_1><end_of_utterance>",
        "images": TINY,
        "add_special_tokens": False,
    },
    "replacements": {"text": "a<image>b<image>", "images": [TINY, WIDE], "return_text_replacement_offsets": True},
    "row info": {"text": "<image>", "images": TINY, "return_row_col_info": True},
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("return_tensors", [None, "pt", "np"])
def test_call(name: str, return_tensors: str | None, pair: Pair) -> None:
    arguments = CALLS[name]
    if return_tensors is not None:
        if name == "replacements":
            pytest.skip("offsets come as lists")
        if name == "common":
            pytest.skip("says itself what to return")
        arguments = {**arguments, "return_tensors": return_tensors}
    assert_same(pair[0](**arguments), pair[1](**arguments))


def test_positional_order(pair: Pair) -> None:
    assert_same(pair[0](WIDE, "<image>"), pair[1](WIDE, "<image>"))


def test_return_row_col_info_false(pair: Pair) -> None:
    """Transformers raises KeyError here; the rows and columns are needed inside whatever the caller wants to see."""
    ours = pair[0](images=WIDE, text="<image>", return_row_col_info=False)
    assert_same(ours, pair[1](images=WIDE, text="<image>"))


def test_no_pictures_at_all(pair: Pair) -> None:
    """Transformers fails on [[]] with an AttributeError; here a batch may have no picture in it."""
    assert_same(pair[0](text=["a"], images=[[]]), pair[1](text=["a"]))


ERRORS: dict[str, dict[str, Any]] = {
    "too many tokens": {"text": "<image><image>", "images": WIDE},
    "too few tokens": {"text": "none", "images": WIDE},
    "wrong samples": {"text": ["<image>", "<image>"], "images": [[WIDE, TALL], []]},
    "flat list, batch": {"text": ["<image>", "<image>"], "images": [WIDE, TALL]},
    "no images": {"text": "<image>"},
    "no videos": {"text": "<video>"},
    "empty list": {"text": "a", "images": []},
    "nothing": {},
    "text is a list of numbers": {"text": [1, 2]},
    "given twice": {"text": "a", "padding": True, "text_kwargs": {"padding": False}},
    "truncated": {"text": "<image>hi", "images": WIDE, "truncation": True, "max_length": 9},
    "truncated batch": {"text": ["<image>hi", "x"], "images": [[WIDE], []], "max_length": 9, "truncation": True},
    "ragged": {"text": ["a", "b c d e"], "return_tensors": "pt"},
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, pair: Pair) -> None:
    assert_same_error(lambda processor: processor(**ERRORS[name]), pair)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"padding": "yes"}, ValueError),
        ({"padding": 3}, ValueError),
        ({"truncation": "some"}, ValueError),
        ({"max_length": "9"}, TypeError),
        ({"max_length": -1}, ValueError),  # Transformers lets the OverflowError of the tokenizers library through
        ({"padding": True, "padding_side": "top"}, ValueError),
    ],
)
def test_bad_text_arguments(arguments: dict[str, Any], error: type[Exception], pair: Pair) -> None:
    with pytest.raises(error):
        pair[0](text="a", **arguments)
    if arguments.get("max_length") != -1:
        with pytest.raises(error):
            pair[1](text=["a", "b c"], **arguments)


@pytest.mark.parametrize("bad", [5, b"text", {"a": 1}, object()])
def test_text_of_another_type(bad: Any, pair: Pair) -> None:
    with pytest.raises(ValueError, match="must be a string"):
        pair[0](text=bad)


def test_audio(pair: Pair) -> None:
    with pytest.raises(ValueError, match="audio"):
        pair[0](text="a", audio=np.zeros(3))


def test_unknown_arguments_are_errors_where_transformers_drops_them(pair: Pair) -> None:
    with pytest.raises(TypeError, match="no_such_argument"):
        pair[0](text="a", no_such_argument=1)


PIECES = ["<image>", "\n", " ", "<row_1_col_1>", "<fake_token_around_image>", "</s>", "\u0301"]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.lists(
            st.text(max_size=8) | st.sampled_from(["<image>", "\n", " ", "<row_1_col_1>", "<fake_token_around_image>"])
        ),
        min_size=1,
        max_size=3,
    )
)
def test_arbitrary_text(texts: list[list[str]], pair: Pair) -> None:
    joined = ["".join(pieces) for pieces in texts]
    images = [[TINY] * text.count("<image>") for text in joined]
    arguments = {"text": joined, "images": images if any(images) else None, "do_image_splitting": False}
    assert pair[0](**arguments)["input_ids"] == pair[1](**arguments)["input_ids"]


@pytest.mark.parametrize("size", ["256m", "2.2b"])  # 500m has the settings of 256m
def test_real_prompts(size: str, data_dir: Path, real_checkpoint: Callable[[str], Path]) -> None:
    """Every picture of the test data, split and unsplit; ids depend on its size only, so a blank one stands for it."""
    ours, reference = load_pair(real_checkpoint(size))
    sizes = set()
    for path in sorted((data_dir / "images").iterdir()):
        if path.suffix != ".md":
            with PIL.Image.open(path) as opened:
                sizes.add(opened.size)
    assert len(sizes) > 20
    conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it, 3 words."}]}]
    prompt = ours.apply_chat_template(conversation, add_generation_prompt=True)
    assert prompt == reference.apply_chat_template(conversation, add_generation_prompt=True)
    grids = {}
    for width, height in sizes:
        _, rows, cols = reference.image_processor.get_number_of_image_patches(height, width)
        grids.setdefault((rows, cols), PIL.Image.new("RGB", (width, height)))
    images = list(grids.values())
    assert len(images) >= 5
    for splitting in (True, False):
        singles = []
        for image in images:
            expected = reference(text=prompt, images=image, do_image_splitting=splitting)["input_ids"]
            assert ours(text=prompt, images=image, do_image_splitting=splitting)["input_ids"] == expected
            singles += expected
        batch = ours(text=[prompt] * 2, images=[[images[0]], [images[-1]]], do_image_splitting=splitting)["input_ids"]
        assert batch == [singles[0], singles[-1]]


# Changing it after loading


def test_changes_after_loading(small_checkpoint: Path) -> None:
    ours, reference = load_pair(small_checkpoint)
    arguments = {"text": ["<image>a", "b"], "images": [[WIDE], []], "padding": True, "return_tensors": "pt"}
    assert_same(ours(**arguments), reference(**arguments))
    for processor in (ours, reference):
        processor.tokenizer.padding_side = "left"
        processor.image_processor.size = {"longest_edge": 96}
        processor.image_seq_len = 7
    assert_same(ours(**arguments), reference(**arguments))
    for processor in (ours, reference):
        processor.image_processor.do_image_splitting = False
    assert_same(ours(**arguments), reference(**arguments))
    # a token that was text until now
    for processor in (ours, reference):
        processor.image_processor.do_image_splitting = True
        processor.image_processor.size = {"longest_edge": 7 * 32}
    assert_same(ours(**arguments), reference(**arguments))
    for processor in (ours, reference):
        processor.tokenizer.add_tokens(["<row_1_col_7>"], special_tokens=True)
    assert_same(ours(**arguments), reference(**arguments))


def test_tokens_that_touch_their_neighbours(small_checkpoint: Path, tmp_path: Path) -> None:
    """An image token that strips the space beside it cannot be expanded after encoding."""
    for path in small_checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        if token["content"] in ("<image>", "<fake_token_around_image>"):
            token["lstrip"] = token["rstrip"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    ours, reference = load_pair(tmp_path)
    assert_same(ours(text="a <image> b", images=WIDE), reference(text="a <image> b", images=WIDE))


def test_copies(pair: Pair) -> None:
    expected = pair[1](text="<image>hi", images=WIDE, return_tensors="pt")
    for copied in (pickle.loads(pickle.dumps(pair[0])), copy.deepcopy(pair[0])):
        assert_same(copied(text="<image>hi", images=WIDE, return_tensors="pt"), expected)
        copied.image_seq_len = 1
        copied.tokenizer.padding_side = "left"
    assert pair[0].image_seq_len == 4
    assert pair[0].tokenizer.padding_side == "right"


# Attributes and decoding


def test_attributes(pair: Pair) -> None:
    ours, reference = pair
    for name in (
        "image_token",
        "image_token_id",
        "image_seq_len",
        "fake_image_token",
        "global_image_token",
        "end_of_utterance_token",
        "video_token",
        "chat_template",
    ):
        assert getattr(ours, name) == getattr(reference, name), name
    assert ours.get_attributes() == reference.get_attributes()
    assert list(ours.unused_input_names) == reference.unused_input_names
    expected = reference.model_input_names
    assert ours.model_input_names == (expected if ours.video_processor is not None else expected[:4])


def test_decoding(pair: Pair) -> None:
    ours, reference = pair
    ids = reference(text="<|im_start|>What is it?<end_of_utterance>")["input_ids"]
    for value in (ids, torch.tensor(ids), np.array(ids)):
        assert ours.batch_decode(value) == reference.batch_decode(value)
        assert ours.batch_decode(value, skip_special_tokens=True) == reference.batch_decode(
            value, skip_special_tokens=True
        )
        assert ours.post_process_image_text_to_text(value) == reference.post_process_image_text_to_text(value)
    assert ours.decode(ids[0]) == reference.decode(ids[0])


# Bad parts


def test_tokenizer_without_image_token(small_checkpoint: Path) -> None:
    from tokenizers import Tokenizer, models

    ours = SmolVLMProcessor.from_pretrained(small_checkpoint)
    bare = SmolVLMTokenizer(Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(ValueError, match="has no token '<image>'"):
        SmolVLMProcessor(ours.image_processor, bare, None, 64)


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("part", ["a string", 3, object(), "swapped"])
def test_parts_of_another_kind(part: Any, position: int, pair: Pair) -> None:
    parts: list[Any] = [pair[0].image_processor, pair[0].tokenizer, None]
    wrong = pair[0].tokenizer if position != 1 else pair[0].image_processor
    parts[position] = wrong if part == "swapped" else part
    with pytest.raises(TypeError, match=r"but an? "):
        SmolVLMProcessor(*parts)


def test_unknown_constructor_argument(pair: Pair) -> None:
    with pytest.raises(TypeError, match="Unexpected keyword argument image_seq_length"):
        SmolVLMProcessor(pair[0].image_processor, pair[0].tokenizer, image_seq_length=3)
