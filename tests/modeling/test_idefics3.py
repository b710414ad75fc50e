"""The Idefics3 family through our own classes: processor, files, model and long generations, beside Transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import faster_smolvlm
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

pytestmark = pytest.mark.parity

PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
    for seed, size in enumerate([(30, 90), (64, 20), (50, 50)])
]


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint with the names that files of SmolVLM v1 and granite-docling have."""
    folder = tmp_path_factory.mktemp("idefics3") / "checkpoint"
    shutil.copytree(small_checkpoint, folder)
    for file in folder.glob("*config.json"):
        values = json.loads(file.read_text())
        values.pop("video_sampling", None)
        for key in ("processor_class", "image_processor_type"):
            if key in values:
                values[key] = values[key].replace("SmolVLM", "Idefics3")
        file.write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def both(checkpoint: Path) -> tuple[Any, Any]:
    return (
        faster_smolvlm.AutoProcessor.from_pretrained(checkpoint),
        transformers.AutoProcessor.from_pretrained(checkpoint),
    )


def same(ours: Any, theirs: Any) -> None:
    assert list(ours) == list(theirs)
    for name in theirs:
        np.testing.assert_allclose(np.asarray(ours[name]), np.asarray(theirs[name]), rtol=0, atol=1e-6, err_msg=name)


def test_the_files_choose_the_classes(both: tuple[Any, Any], checkpoint: Path) -> None:
    ours, theirs = both
    assert type(ours) is faster_smolvlm.Idefics3Processor
    assert type(theirs) is transformers.Idefics3Processor
    assert type(ours.image_processor) is faster_smolvlm.Idefics3ImageProcessor
    alone = faster_smolvlm.AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    assert type(alone) is faster_smolvlm.Idefics3ImageProcessorPil
    names = ("image_token", "fake_image_token", "global_image_tag", "end_of_utterance_token", "image_token_id")
    for name in (*names, "fake_image_token_id", "global_image_token_id", "image_seq_len", "chat_template"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_attributes() == list(theirs.get_attributes())


CALLS: dict[str, dict[str, Any]] = {
    "one": {"images": PICTURES[0], "text": "<image>what is it?"},
    "flat, two prompts": {"images": PICTURES[:2], "text": ["<image>a", "<image>bb"], "padding": True},
    "flat, dealt out": {"images": PICTURES, "text": ["<image>a<image>", "<image>bb"], "padding": True},
    "nested, one empty": {"images": [[PICTURES[0]], []], "text": ["<image>a", "bb"], "padding": True},
    "no splitting": {"images": PICTURES[:1], "text": ["<image>"], "do_image_splitting": False},
    "text alone": {"text": ["a", "bb"], "padding": True},
    "types": {
        "images": PICTURES,
        "text": ["<image>a<image>", "<image>bb"],
        "padding": True,
        "return_mm_token_type_ids": True,
    },
    "types, left": {
        "images": [[PICTURES[2]], [PICTURES[0]]],
        "text": ["<image>", "long <image>bb"],
        "padding": True,
        "padding_side": "left",
        "return_mm_token_type_ids": True,
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str, both: tuple[Any, Any]) -> None:
    ours, theirs = both
    same(ours(**CALLS[name], return_tensors="pt"), theirs(**CALLS[name], return_tensors="pt"))


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"images": PICTURES[:2], "text": ["<image>a"]},
        {"images": [[PICTURES[0]], []], "text": ["a", "<image>b"]},
        {"text": "<image>"},
        {"images": PICTURES[0], "text": "a"},
    ],
    ids=["nothing", "too many", "elsewhere", "no picture", "no place"],
)
def test_errors(call: dict[str, Any], both: tuple[Any, Any]) -> None:
    ours, theirs = both
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        theirs(**call)
    with pytest.raises(ValueError) as given:  # noqa: PT011
        ours(**call)
    assert str(given.value) == str(expected.value)


def test_conversation(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    content = [{"type": "image", "image": PICTURES[0]}, {"type": "text", "text": "what is it?"}]
    call = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    conversation = [{"role": "user", "content": content}]
    same(ours.apply_chat_template(conversation, **call), theirs.apply_chat_template(conversation, **call))


def test_files_written_by_either_are_read_by_the_other(both: tuple[Any, Any], tmp_path: Path) -> None:
    ours, theirs = both
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    a = transformers.AutoProcessor.from_pretrained(tmp_path / "ours")
    b = faster_smolvlm.AutoProcessor.from_pretrained(tmp_path / "theirs")
    assert (type(a), type(b)) == (transformers.Idefics3Processor, faster_smolvlm.Idefics3Processor)
    same(b(**CALLS["types"], return_tensors="pt"), a(**CALLS["types"], return_tensors="pt"))
    written = [json.loads((tmp_path / side / "processor_config.json").read_text()) for side in ("ours", "theirs")]
    assert written[0] == written[1]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.Idefics3Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        text_config={
            "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 443, "pad_token_id": 2,
            "max_position_embeddings": 9000, "initializer_range": 0.3,
        },
        scale_factor=2,
        image_token_id=400,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("idefics3-model")
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_model(model_folder: Path, tmp_path: Path) -> None:
    ours = faster_smolvlm.AutoModelForImageTextToText.from_pretrained(model_folder)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(model_folder)
    assert type(ours) is faster_smolvlm.Idefics3ForConditionalGeneration
    call = {
        "input_ids": torch.tensor([[5, *[400] * 4, 9, 7, 400, 400, 400, 400]]),
        "pixel_values": torch.rand(1, 2, 3, 32, 32) - 0.5,
        "pixel_attention_mask": torch.ones(1, 2, 32, 32, dtype=torch.int64),
    }
    with torch.no_grad():
        np.testing.assert_allclose(ours(**call).logits, theirs(**call).logits, atol=1e-4)
    ours.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.model_type, config.vision_config.model_type) == ("idefics3", "idefics3_vision")
    assert config.architectures == ["Idefics3ForConditionalGeneration"]
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), theirs.parameters(), strict=True))


def test_long_generations_end_at_stop_strings(model_folder: Path, both: tuple[Any, Any]) -> None:
    """A page of a document is thousands of tokens; its end is a word that several tokens spell."""
    model = faster_smolvlm.AutoModelForImageTextToText.from_pretrained(model_folder)
    tokenizer = both[0].tokenizer
    end, at = tokenizer.encode_fragment("</doctag>"), 1000
    assert len(end) > 1

    def page(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - 3
        token = end[step - at] if at <= step < at + len(end) else 100 + step % 7
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([token]), 0.0)

    call = {"eos_token_id": None, "tokenizer": tokenizer, "stop_strings": ["</doctag>", "<|end_of_text|>"]}
    ids = model.generate(input_ids=torch.tensor([[5, 9, 7]]), max_new_tokens=8192, logits_processor=[page], **call)
    assert ids.shape == (1, 3 + at + len(end))
    assert tokenizer.decode(ids[0]).endswith("</doctag>")
