"""Reading and writing checkpoints: C02 to C05, and files that are broken or belong to another model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from faster_smolvlm import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMModel, SmolVLMVisionTransformer
from faster_smolvlm.native import NativeSmolVLM
from safetensors.torch import load_file, save_file

from tests.helpers.tiny_models import save_theirs, tiny_config

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread", "no_gradients")]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def directory(tiny_dir, tmp_path):
    """A copy of the tiny checkpoint, to be damaged."""
    return shutil.copytree(tiny_dir, tmp_path / "checkpoint")


def rewrite(directory, change):
    """Replace the tensors of a checkpoint by what `change` makes of them."""
    save_file(change(load_file(directory / WEIGHTS)), directory / WEIGHTS, metadata={"format": "pt"})


def logits(model, batch):
    return model(**batch.inputs()).logits


def test_c02_state_dict(tiny):
    ours, theirs = tiny.ours.state_dict(), tiny.theirs.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("shard_size", ["50GB", "20KB", 30_000])
def test_c03_saved_files(tiny, batch, tmp_path, shard_size):
    tiny.theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shard_size)
    tiny.ours.save_pretrained(tmp_path / "ours", max_shard_size=shard_size)
    weights = [{path.name for path in (tmp_path / side).glob("model*")} for side in ("ours", "theirs")]
    assert weights[0] == weights[1]
    if shard_size != "50GB":
        ours, theirs = (json.loads((tmp_path / side / INDEX).read_text()) for side in ("ours", "theirs"))
        assert ours == theirs
    theirs, report = transformers.SmolVLMForConditionalGeneration.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(report.values())
    for source in ("ours", "theirs"):
        again = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / source)
        assert torch.equal(logits(again, batch), logits(tiny.ours, batch))
    torch.testing.assert_close(logits(theirs, batch), logits(tiny.ours, batch), atol=1e-5, rtol=0)


def test_c03_saving_again_leaves_no_stale_shard(tiny, batch, tmp_path):
    tiny.ours.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / INDEX).exists()
    loaded = SmolVLMForConditionalGeneration.from_pretrained(tmp_path)
    expected = logits(loaded, batch)
    loaded.save_pretrained(tmp_path)  # over the very files that it has mapped
    assert [path.name for path in tmp_path.glob("model*")] == [WEIGHTS]
    assert torch.equal(logits(loaded, batch), expected)
    assert torch.equal(logits(SmolVLMForConditionalGeneration.from_pretrained(tmp_path), batch), expected)


def test_c04_names_without_the_leading_model(directory, tiny, batch):
    rewrite(directory, lambda state: {name.removeprefix("model."): tensor for name, tensor in state.items()})
    model = SmolVLMForConditionalGeneration.from_pretrained(directory)
    assert torch.equal(logits(model, batch), logits(tiny.ours, batch))


def test_c04_tied_head(tmp_path, batch):
    theirs = save_theirs(tiny_config(tie_word_embeddings=True), tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / WEIGHTS)
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert ours.lm_head.weight is ours.get_input_embeddings().weight
    torch.testing.assert_close(logits(ours, batch), logits(theirs, batch), atol=1e-4, rtol=0)
    ours.save_pretrained(tmp_path / "again")
    assert "lm_head.weight" not in load_file(tmp_path / "again" / WEIGHTS)
    assert SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "again").num_parameters() == ours.num_parameters()


def test_c04_tied_head_that_is_stored_too(tmp_path, batch):
    theirs = save_theirs(tiny_config(tie_word_embeddings=True), tmp_path)
    rewrite(tmp_path, lambda state: {**state, "lm_head.weight": state["model.text_model.embed_tokens.weight"].clone()})
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert ours.lm_head.weight is ours.get_input_embeddings().weight
    torch.testing.assert_close(logits(ours, batch), logits(theirs, batch), atol=1e-4, rtol=0)


def test_c04_missing_head_is_an_error(directory):
    """Transformers leaves it random, with a warning."""
    rewrite(directory, lambda state: {name: tensor for name, tensor in state.items() if name != "lm_head.weight"})
    with pytest.raises(RuntimeError, match=r"1 missing: lm_head\.weight"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


def test_c04_wrong_prefix_is_an_error(directory):
    rewrite(directory, lambda state: {k.replace("text_model", "language_model"): v for k, v in state.items()})
    with pytest.raises(RuntimeError) as caught:
        SmolVLMForConditionalGeneration.from_pretrained(directory)
    message = str(caught.value)
    assert "29 missing: model.text_model.embed_tokens.weight" in message
    assert "29 unexpected: model.language_model." in message
    assert "and 21 more" in message
    assert str(directory) in message


TABLES = {
    "model.text_model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    "model.text_model.rotary_emb.inv_freq": torch.ones(4),
    "vision_model.embeddings.position_ids": torch.arange(16)[None],
}


@pytest.mark.parametrize("others", [[], ["ema.step", "model.text_model.layers.99.mlp.up_proj.weight"]])
def test_tensors_that_the_model_has_not_are_left_out(directory, tiny, batch, caplog, others):
    rewrite(directory, lambda state: {**state, **TABLES, **{name: torch.ones(3) for name in others}})
    for load in (SmolVLMForConditionalGeneration, NativeSmolVLM):
        caplog.clear()
        model = load.from_pretrained(directory)
        said = [record.getMessage() for record in caplog.records if "the model has not" in record.getMessage()]
        assert len(said) == bool(others)
        assert all(f"2 unused: {', '.join(others)}" in message for message in said)
        if load is SmolVLMForConditionalGeneration:
            assert torch.equal(logits(model, batch), logits(tiny.ours, batch))


def test_embeddings_that_are_stored_as_the_head(tmp_path, batch):
    theirs = save_theirs(tiny_config(tie_word_embeddings=True), tmp_path)
    embedding = "model.text_model.embed_tokens.weight"
    rewrite(tmp_path, lambda state: {n if n != embedding else "lm_head.weight": t for n, t in state.items()})
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert ours.lm_head.weight is ours.get_input_embeddings().weight
    torch.testing.assert_close(logits(ours, batch), logits(theirs, batch), atol=1e-4, rtol=0)
    with pytest.raises(RuntimeError, match=r"1 missing: text_model\.embed_tokens\.weight"):
        SmolVLMModel.from_pretrained(tmp_path)  # of Transformers', the embeddings would be random


def test_misshaped_tensors_are_named(directory):
    def change(state):
        state["lm_head.weight"] = torch.zeros(99, 24)
        state["model.connector.modality_projection.proj.weight"] = torch.zeros(24, 64)
        return state

    rewrite(directory, change)
    with pytest.raises(RuntimeError) as caught:
        SmolVLMForConditionalGeneration.from_pretrained(directory)
    assert "lm_head.weight is [99, 24], expected [100, 24]" in str(caught.value)
    assert "proj.weight is [24, 64], expected [24, 128]" in str(caught.value)


def test_integer_tensors_are_named(directory):
    rewrite(directory, lambda state: {**state, "lm_head.weight": torch.zeros(100, 24, dtype=torch.int8)})
    with pytest.raises(RuntimeError, match=r"lm_head\.weight is I8"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


def test_a_tensor_twice_is_an_error(directory):
    rewrite(directory, lambda state: {**state, "connector.modality_projection.proj.weight": torch.zeros(24, 128)})
    with pytest.raises(RuntimeError, match=r"proj\.weight' twice"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


@pytest.mark.parametrize("keep", [0, 7, 500, -1])
def test_truncated_file(directory, keep):
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(data[:keep])
    with pytest.raises(OSError, match=r"model\.safetensors' is not a whole safetensors file"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


def test_header_that_lies(directory):
    """A header length of 2^60 bytes must not be believed."""
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes((2**60).to_bytes(8, "little") + data[8:])
    with pytest.raises(OSError, match="not a whole safetensors file"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


def test_no_weights(directory):
    (directory / WEIGHTS).unlink()
    with pytest.raises(OSError, match=r"has neither 'model\.safetensors' nor"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


def test_missing_shard(tiny, tmp_path):
    tiny.ours.save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-*"))[1]
    shard.unlink()
    with pytest.raises(OSError, match=shard.name):
        SmolVLMForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "weights.bin"])
def test_index_that_points_elsewhere(directory, shard):
    (directory / WEIGHTS).rename(directory.parent / WEIGHTS)
    (directory / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
    with pytest.raises(OSError, match="which is no safetensors file beside it"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"weight_map": {}}'])
def test_broken_index(directory, content):
    (directory / WEIGHTS).unlink()
    (directory / INDEX).write_text(content)
    with pytest.raises(OSError, match=r"index\.json"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


def test_another_architecture(directory):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    with pytest.raises(ValueError, match="model_type 'llava'"):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


def test_c05_idefics3_checkpoint(tmp_path, batch):
    config = transformers.Idefics3Config(**tiny_config())
    torch.manual_seed(0)
    theirs = transformers.Idefics3ForConditionalGeneration(config).float().eval()
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "idefics3"
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(ours, batch), logits(theirs, batch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_dtypes(tiny, tmp_path, stored):
    tiny.copy().ours.to(stored).save_pretrained(tmp_path)
    for dtype in (None, "auto"):
        assert SmolVLMForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype).dtype == stored
    for dtype, expected in (
        (torch.bfloat16, torch.bfloat16),
        ("float32", torch.float32),
        ("torch.float16", torch.float16),
    ):
        model = SmolVLMForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert SmolVLMForConditionalGeneration.from_pretrained(tmp_path, torch_dtype=torch.float16).dtype == torch.float16
    with pytest.raises(ValueError, match="dtype 'int8' is not supported"):
        SmolVLMForConditionalGeneration.from_pretrained(tmp_path, dtype="int8")


def test_auto_dtype_without_one_in_the_config(directory):
    config = json.loads((directory / "config.json").read_text())
    config.pop("dtype")
    (directory / "config.json").write_text(json.dumps(config))
    rewrite(directory, lambda state: {name: tensor.half() for name, tensor in state.items()})
    assert SmolVLMForConditionalGeneration.from_pretrained(directory).dtype == torch.float16


def test_devices(tiny_dir):
    for place in ({"device": "cpu"}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}}, {"device_map": "auto"}):
        assert SmolVLMForConditionalGeneration.from_pretrained(tiny_dir, **place).device.type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="device_map must be one device"):
        SmolVLMForConditionalGeneration.from_pretrained(tiny_dir, device_map={"model": 0, "lm_head": "cpu"})


def test_loaded_model_is_ready(tiny_dir):
    model = SmolVLMForConditionalGeneration.from_pretrained(tiny_dir, attn_implementation="eager")
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config.vision_config._attn_implementation == "eager"
    assert "_attn_implementation" not in model.config.to_json_string()
    with pytest.raises(ValueError, match="attn_implementation must be one of auto, triton, sdpa, eager"):
        SmolVLMForConditionalGeneration.from_pretrained(tiny_dir, attn_implementation="flash")


def test_parts_save_and_load_alone(tiny, tmp_path):
    tiny.ours.model.save_pretrained(tmp_path / "base")
    base = SmolVLMModel.from_pretrained(tmp_path / "base")
    assert torch.equal(base.text_model.norm.weight, tiny.ours.model.text_model.norm.weight)
    tiny.ours.model.vision_model.save_pretrained(tmp_path / "vision")
    tower = SmolVLMVisionTransformer.from_pretrained(tmp_path / "vision")
    assert torch.equal(tower.post_layernorm.bias, tiny.ours.model.vision_model.post_layernorm.bias)
    with pytest.raises(RuntimeError, match=r"1 missing: lm_head\.weight"):
        SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "base")


def test_random_weights_follow_the_config():
    torch.manual_seed(0)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**tiny_config()))
    text, vision = model.model.text_model, model.model.vision_model
    for weight in (text.layers[0].mlp.up_proj.weight, vision.encoder.layers[0].mlp.fc1.weight, model.lm_head.weight):
        assert 0.17 < weight.std() < 0.23
    assert not text.embed_tokens.weight[2].any()
    assert not vision.encoder.layers[0].mlp.fc1.bias.any()
    assert torch.equal(text.norm.weight, torch.ones(24))
    with pytest.raises(TypeError, match="takes a SmolVLMConfig, got str"):
        SmolVLMForConditionalGeneration("HuggingFaceTB/SmolVLM2-256M-Video-Instruct")


@pytest.mark.parametrize("tie", [False, True])
def test_resize_token_embeddings(tie):
    config = tiny_config(tie_word_embeddings=tie)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**config))
    before = model.get_input_embeddings().weight.clone()
    for size in (107, 60):
        embeddings = model.resize_token_embeddings(size)
        assert embeddings is model.get_input_embeddings()
        assert embeddings.weight.shape == model.lm_head.weight.shape == (size, 24)
        assert torch.equal(embeddings.weight[:60], before[:60])
        assert model.config.text_config.vocab_size == model.vocab_size == size
        assert (model.lm_head.weight is embeddings.weight) == tie
        assert model(torch.tensor([[1, 5]])).logits.shape == (1, 2, size)
    assert model.resize_token_embeddings(61, pad_to_multiple_of=64).num_embeddings == 64
