"""What Transformers' own tests of the SmolVLM and Idefics3 processors check, with `enable()` on.

Its source distribution has the common test classes but no tests of these two families, so what those check is restated
here. Left out, since they look at no accelerated code: agreement of the two backends with each other (each is held to
Transformers' own pixels, to the bit, in tests/pixels), compiling with torch.compile, running without torchvision, files
of other names, audio and segmentation, and the name of the class of keyword arguments, which is looked for in the
module of the processor's class. `dev/LOG.md` counts a run of the common classes themselves.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faster_smolvlm.integrations.transformers as integration
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

pytestmark = pytest.mark.skipif(
    not hasattr(transformers.SmolVLMImageProcessor, "_preprocess_image_like_inputs"),
    reason="these are the rules of Transformers 5.23 and later",
)
RNG = np.random.default_rng(0)
TOKENS, TILE = 16, 64  # of the bundled checkpoint: tokens of a tile, and its sides


@pytest.fixture(autouse=True, scope="module")
def enabled() -> Iterator[None]:
    integration.enable()
    yield
    integration.disable()


@pytest.fixture(params=["demo", "idefics3_demo"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


@pytest.fixture
def processor(folder: Path) -> Any:
    loaded = transformers.AutoProcessor.from_pretrained(folder)
    assert type(loaded.image_processor).__module__ == integration.__name__
    return loaded


def picture(width: int = 100, height: int = 60) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))


# Image processors


@pytest.mark.parametrize("form", ["pictures", "NumPy", "torch"])
@pytest.mark.parametrize("sizes", [[(100, 60)], [(100, 60), (60, 100)], [(40, 40), (200, 20)]], ids=str)
def test_shapes(sizes: list[tuple[int, int]], form: str, processor: Any) -> None:
    """The longest edge becomes two tiles, the other one as many as it touches; a whole view comes last."""
    frames = []
    given: list[Any] = []
    for width, height in sizes:
        one = picture(width, height)
        short = 2 * TILE * min(width, height) / max(width, height)
        frames.append(2 * int(np.ceil(int(short) / TILE)) + 1)
        if form == "NumPy":
            given.append([np.array(one)])
        else:
            given.append([one if form == "pictures" else torch.from_numpy(np.array(one)).permute(2, 0, 1)])
    found = processor.image_processor(given, return_tensors="pt")
    assert found.pixel_values.shape == (len(sizes), max(frames), 3, TILE, TILE)
    assert found.pixel_attention_mask.shape == (len(sizes), max(frames), TILE, TILE)
    for row, count in zip(found.pixel_values, frames, strict=True):
        assert row[:count].flatten(1).any(1).all()
        assert not row[count:].any()
    alone = processor.image_processor(given[0], return_tensors="pt").pixel_values
    assert torch.equal(alone[0], found.pixel_values[0, : frames[0]])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA"])
def test_other_modes_become_rgb(mode: str, processor: Any) -> None:
    mixed = [[picture().convert(mode), picture()]]
    assert processor.image_processor(mixed, return_tensors="pt").pixel_values.shape[2] == 3


def test_files_and_dictionaries(processor: Any, tmp_path: Path) -> None:
    image_processor = processor.image_processor
    values = json.loads(image_processor.to_json_string())
    for name, value in image_processor.to_dict().items():
        assert values[name] == (list(value) if isinstance(value, tuple) else value), name
    image_processor.to_json_file(tmp_path / "one.json")
    kind = type(image_processor)
    assert kind.from_json_file(tmp_path / "one.json").to_dict() == image_processor.to_dict()
    image_processor.save_pretrained(tmp_path)
    for again in (kind.from_pretrained(tmp_path), transformers.AutoImageProcessor.from_pretrained(tmp_path)):
        assert type(again) is kind
        assert again.to_dict() == image_processor.to_dict()
    assert kind.from_dict(image_processor.to_dict(), do_resize=False).do_resize is False
    assert isinstance(kind(), kind)


def test_instances_share_nothing(processor: Any) -> None:
    kind = type(processor.image_processor)
    one, other = kind(size={"longest_edge": 100}), kind(size={"longest_edge": 100})
    one.size["longest_edge"] = 77
    one.image_mean = [0.1, 0.1, 0.1]
    assert other.size["longest_edge"] == kind(size={"longest_edge": 100}).size["longest_edge"] == 100
    assert other.image_mean == kind().image_mean


def test_arguments_of_a_call_are_for_that_call(processor: Any) -> None:
    image_processor = processor.image_processor
    before = image_processor(picture(), return_tensors="pt").pixel_values.shape
    once = image_processor(picture(), do_image_splitting=False, return_tensors="pt").pixel_values.shape
    assert once == (1, 1, 3, TILE, TILE)
    assert image_processor(picture(), return_tensors="pt").pixel_values.shape == before
    scaled = image_processor(picture(), do_rescale=False, do_normalize=False, return_tensors="pt").pixel_values
    assert scaled.max() > 200


def test_results_move_and_change_type(processor: Any) -> None:
    found = processor(text="<image>what?", images=picture(), return_tensors="pt").to("cpu", torch.float16)
    assert found.pixel_values.dtype == torch.float16
    assert found.input_ids.dtype == torch.int64
    assert set(processor.model_input_names) <= set(found)


# Processors


@pytest.mark.parametrize("splitting", [True, False])
def test_interleaved_pictures(splitting: bool, processor: Any) -> None:
    texts = ["<image>In this image, we see", "bla, bla <image><image>"]
    images = [[picture()], [picture(), picture(60, 100)]]
    found = processor(
        text=texts, images=images, padding=True, return_tensors="pt", do_image_splitting=splitting
    )  # fmt: skip
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    per_picture = TOKENS * (5 if splitting else 1)
    assert (found.input_ids == image_id).sum(1).tolist() == [per_picture, 2 * per_picture]
    assert found.pixel_values.shape[:2] == (2, 10 if splitting else 2)
    assert found.input_ids.shape == found.attention_mask.shape
    lengths = [len(processor(text=text, images=image, do_image_splitting=splitting)["input_ids"][0])
               for text, image in zip(texts, images, strict=True)]  # fmt: skip
    assert found.attention_mask.sum(1).tolist() == lengths
    decoded = processor.batch_decode(found.input_ids, skip_special_tokens=True)
    assert decoded[0].endswith("In this image, we see")


def test_flat_pictures_of_several_texts(processor: Any) -> None:
    """Idefics3 gives each text those that it asks for; SmolVLM refuses them."""
    call = {"text": ["<image>one", "<image>two"], "padding": True, "return_tensors": "pt"}
    images = [picture(), picture(60, 100)]
    if isinstance(processor, transformers.SmolVLMProcessor):
        with pytest.raises(ValueError, match="number of"):
            processor(images=images, **call)
        return
    nested, flat = processor(images=[[image] for image in images], **call), processor(images=images, **call)
    assert torch.equal(flat.input_ids, nested.input_ids)
    assert torch.equal(flat.pixel_values, nested.pixel_values)


@pytest.mark.parametrize(
    ("texts", "counts"), [(["<image>"], [2]), (["<image><image>"], [1]), (["none"], [1]), (["<image>", "<image>"], [1])]
)
def test_numbers_of_pictures_must_match(texts: list[str], counts: list[int], processor: Any) -> None:
    with pytest.raises(ValueError, match="image"):
        processor(text=texts, images=[[picture() for _ in range(count)] for count in counts])
    with pytest.raises(ValueError, match="image"):
        processor(text="<image>")


def test_text_without_pictures(processor: Any) -> None:
    found = processor(text=["what?", "a longer question"], padding=True, return_tensors="pt")
    assert set(found) == {"input_ids", "attention_mask"}


def test_truncation_may_not_cut_a_picture(processor: Any) -> None:
    with pytest.raises((ValueError, TypeError)):  # Idefics3 stumbles in Transformers' own code
        processor(text="<image>what?", images=picture(), truncation=True, max_length=20, return_tensors="pt")


@pytest.mark.parametrize("nested", [True, False])
def test_keyword_arguments_reach_their_part(nested: bool, processor: Any) -> None:
    texts = {"padding": "max_length", "max_length": 150}
    images = {"do_image_splitting": False, "do_rescale": True, "rescale_factor": -1.0}
    keywords = {"text_kwargs": texts, "images_kwargs": images} if nested else {**texts, **images}
    found = processor(text="<image>what?", images=picture(), return_tensors="pt", **copy.deepcopy(keywords))
    assert found.input_ids.shape == (1, 150)
    assert found.pixel_values.shape[1] == 1
    assert found.pixel_values.mean() < 0
    with pytest.raises(ValueError, match="passed"):
        processor(text="<image>", images=picture(), images_kwargs={"do_resize": True}, do_resize=False)


def test_settings_given_at_loading_stay(folder: Path, tmp_path: Path) -> None:
    loaded = transformers.AutoProcessor.from_pretrained(folder, do_image_splitting=False, padding_side="left")
    assert loaded(text="<image>", images=picture(), return_tensors="pt").pixel_values.shape[1] == 1
    assert loaded.tokenizer.padding_side == "left"
    loaded.save_pretrained(tmp_path)
    again = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == loaded.to_dict()
    assert again.chat_template == loaded.chat_template
    assert again.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    assert not any("faster" in (tmp_path / name).read_text() for name in os.listdir(tmp_path) if name.endswith("json"))


def test_chat_template(processor: Any, scene: Image.Image) -> None:
    content = [{"type": "image", "image": scene}, {"type": "text", "text": "what?"}]
    chats = [[{"role": "user", "content": content}], [{"role": "user", "content": content[1:]}]]
    settings = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    one = processor.apply_chat_template(chats[0], **settings)
    assert one["pixel_values"].shape == (1, 5, 3, TILE, TILE)
    text = processor.apply_chat_template(chats[0], add_generation_prompt=True)
    assert torch.equal(one["input_ids"], processor(text=text, images=[scene], return_tensors="pt")["input_ids"])
    assert processor.apply_chat_template([chats[0]] * 2, add_generation_prompt=True) == [text, text]


def test_predicted_tokens_are_those_made(processor: Any) -> None:
    if not hasattr(processor, "_get_num_multimodal_tokens"):
        pytest.skip("this version does not predict")
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    for size in [(100, 60), (60, 100), (300, 40), (64, 64), (1, 1)]:
        made = processor(text="<image>", images=[picture(*size)], return_tensors="pt")
        frames = processor.image_processor.get_number_of_image_patches(size[1], size[0], {})[0]
        assert frames == made.pixel_values.shape[1]
        assert (made.input_ids == image_id).sum() == TOKENS * frames
