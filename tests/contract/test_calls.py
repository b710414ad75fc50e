"""What packages do that are too heavy to install here, or need a GPU, written out as the calls they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from faster_smolvlm.integrations.transformers import accelerate
from PIL import Image

from tests.helpers.contract import same


@pytest.fixture(params=["demo", "idefics3_demo"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    folder = request.getfixturevalue(request.param)
    load = transformers.AutoProcessor.from_pretrained
    return load(folder), accelerate(load(folder))


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (640, 480), (90, 1000)], ids=str)
def test_vllm(size: tuple[int, int], pair: tuple[Any, Any]) -> None:
    """vLLM checks the class, reads attributes, predicts the number of tokens, then calls for one prompt."""
    theirs, ours = pair
    assert isinstance(ours, (transformers.SmolVLMProcessor, transformers.Idefics3Processor))
    for name in ("image_token", "fake_image_token", "image_seq_len", "image_token_id", "end_of_utterance_token"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.image_processor.size["longest_edge"] == theirs.image_processor.size["longest_edge"]
    edge = ours.image_processor.max_image_size["longest_edge"]
    assert ours.image_processor.size["longest_edge"] % edge == 0
    picture = Image.new("RGB", size, (9, 99, 200))
    call = {"text": "<image>", "images": [picture], "return_tensors": "pt", "input_data_format": "channels_last"}
    features = ours(**call)
    same(features, theirs(**call))
    frames, *_ = ours.image_processor.get_number_of_image_patches(size[1], size[0], {})
    assert features["pixel_values"].squeeze(0).shape[0] == max(frames, 1)
    if hasattr(theirs, "_get_num_multimodal_tokens"):
        predicted = ours._get_num_multimodal_tokens(image_sizes=[(size[1], size[0])])
        assert (
            predicted.num_image_tokens
            == theirs._get_num_multimodal_tokens(image_sizes=[(size[1], size[0])]).num_image_tokens
        )
    for settings in ({"size": {"longest_edge": 2 * edge}}, {"max_image_size": {"longest_edge": 2 * edge}}):
        same(ours(**call, **settings), theirs(**call, **settings))


def test_sglang(pair: tuple[Any, Any]) -> None:
    """SGLang passes nested lists and `padding`, asks for tensors, and reads the ids of the tokens."""
    theirs, ours = pair
    call = {"text": ["<image>what?"], "images": [[Image.new("RGB", (50, 70))]], "padding": True, "return_tensors": "pt"}
    same(ours(**call), theirs(**call))
    assert ours.tokenizer.convert_tokens_to_ids(ours.image_token) == ours.image_token_id


def test_docling(pair: tuple[Any, Any]) -> None:
    """docling pads on the left, renders the prompt, and calls with flat lists for a batch of pages."""
    theirs, ours = pair
    pages = [Image.new("RGB", (612, 792), (250, 250, 250)), Image.new("RGB", (792, 612), (200, 250, 250))]
    results = []
    for processor in (ours, theirs):
        processor.tokenizer.padding_side = "left"
        content = [{"type": "text", "text": "Convert this page to docling."}, {"type": "image"}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        images: Any = pages if isinstance(processor, transformers.Idefics3Processor) else [[page] for page in pages]
        results.append(processor(text=[prompt] * 2, images=images, return_tensors="pt", padding=True))
    same(*results)


def test_vlmevalkit(pair: tuple[Any, Any]) -> None:
    """VLMEvalKit changes the processors after loading, for clips given as pictures."""
    theirs, ours = pair
    frames = [Image.new("RGB", (64, 48), (index * 30, 0, 0)) for index in range(3)]
    for processor in pair:
        edge = processor.image_processor.max_image_size["longest_edge"]
        processor.image_processor.size = {"longest_edge": edge}
        processor.image_processor.do_resize = False
        processor.image_processor.do_image_splitting = False
        processor.do_image_splitting = False
        processor.image_size = {"longest_edge": edge}
    call = {"text": "<image>" * 3 + "what happens?", "images": frames, "return_tensors": "pt"}
    same(ours(**call), theirs(**call))


def test_lerobot_smolvla(demo: Path) -> None:
    """SmolVLA takes the model apart: the vision tower, the connector, and the first layers of the text stack."""
    kind = transformers.AutoModelForImageTextToText
    theirs, ours = (kind.from_pretrained(demo, dtype=torch.float32).eval() for _ in range(2))
    accelerate(ours)
    tokenizer = transformers.AutoProcessor.from_pretrained(demo).tokenizer
    assert tokenizer.convert_tokens_to_ids("<global-img>") >= 0
    side = ours.config.vision_config.image_size
    picture = torch.rand(1, 3, side, side) * 2 - 1
    seen = []
    for vlm in (ours, theirs):
        vlm.model.text_model.layers = vlm.model.text_model.layers[:2]
        model = vlm.model
        hidden = model.vision_model(pixel_values=picture.to(model.vision_model.dtype), patch_attention_mask=None)
        tokens = model.connector(hidden.last_hidden_state)
        layer, sizes = model.text_model.layers[0], vlm.config.text_config
        normed = layer.input_layernorm(tokens)
        query = layer.self_attn.q_proj(normed).view(*tokens.shape[:2], -1, layer.self_attn.head_dim)
        values = layer.mlp(layer.post_attention_layernorm(tokens + layer.self_attn.o_proj(query.flatten(2))))
        seen.append(model.text_model.norm(values))
        names = set(vlm.state_dict())
        assert {"lm_head.weight", "model.text_model.norm.weight"} <= names
        assert not any(".layers.2." in name for name in names if "text_model" in name)
        assert sizes.num_attention_heads * layer.self_attn.head_dim == query.flatten(2).shape[-1]
        assert model.text_model.get_input_embeddings().weight.shape[1] == sizes.hidden_size
    assert torch.equal(*seen)
    prompt = torch.tensor([[1, 30, 40]])
    assert torch.equal(ours.generate(prompt, max_new_tokens=4), theirs.generate(prompt, max_new_tokens=4))
