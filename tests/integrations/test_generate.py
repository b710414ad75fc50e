"""Transformers' own models, accelerated: the same answers as without, whichever engine serves."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import faster_smolvlm
import pytest
import torch
import transformers
from faster_smolvlm.integrations.transformers import accelerate, disable, enable, notes
from faster_smolvlm.integrations.transformers.positions import same_positions
from PIL import Image

pytestmark = pytest.mark.parity

DEMO = Path(str(files("faster_smolvlm"))) / "demo"
ROOT = Path(__file__).resolve().parents[2]
LIMIT = {"max_new_tokens": 24}
OLD = transformers.__version__.startswith("4.")
newer = pytest.mark.skipif(OLD, reason="4.57 gives the patches of pictures other positions, so it serves itself")


def load(kind: str = "SmolVLMForConditionalGeneration") -> Any:
    return getattr(transformers, kind).from_pretrained(DEMO, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def inputs() -> Any:
    processor = transformers.AutoProcessor.from_pretrained(DEMO)
    processor.tokenizer.padding_side = "left"
    picture = Image.open(ROOT / "examples" / "media" / "scene.png").convert("RGB")
    asked = ["Describe the image.", "What colour is the square?"]
    content = [[{"type": "image"}, {"type": "text", "text": question}] for question in asked]
    texts = [
        processor.apply_chat_template([{"role": "user", "content": items}], add_generation_prompt=True)
        for items in content
    ]
    return processor(text=texts, images=[[picture], [picture]], padding=True, return_tensors="pt")


@pytest.fixture(scope="module")
def theirs() -> Any:
    return load()


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(notes, "_logged", set())
    return accelerate(load())


@pytest.mark.parametrize("side", [8, 27, 32])
def test_positions_of_patches_are_compared(side: int) -> None:
    kinds = (
        transformers.models.smolvlm.modeling_smolvlm.SmolVLMVisionEmbeddings,
        transformers.models.idefics3.modeling_idefics3.Idefics3VisionEmbeddings,
    )
    assert [same_positions(kind, side) for kind in kinds] == [not OLD, not OLD]

    class Shifted(kinds[0]):
        def forward(self, pixel_values: torch.Tensor, patch_attention_mask: torch.Tensor) -> torch.Tensor:
            return super().forward(pixel_values, patch_attention_mask).roll(1, 1)

    assert not same_positions(Shifted, side)


@pytest.mark.skipif(not OLD, reason="newer versions give patches the positions that our engines give them")
def test_another_vision_tower_is_left_to_transformers(inputs: Any, theirs: Any, ours: Any) -> None:
    assert torch.equal(ours.generate(**inputs, **LIMIT), theirs.generate(**inputs, **LIMIT))
    assert "other positions" in ours.generation_engine.reason


@newer
def test_the_native_engine_gives_the_same_ids(inputs: Any, theirs: Any, ours: Any) -> None:
    expected = theirs.generate(**inputs, **LIMIT)
    assert torch.equal(ours.generate(**inputs, **LIMIT), expected)
    assert ours.generation_engine.name == "native"
    assert isinstance(ours, transformers.SmolVLMForConditionalGeneration)
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(copied.generate(**inputs, **LIMIT), expected)
        assert copied.generation_engine.name == "native"


@newer
@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.5},
        {"min_new_tokens": 12},
        {"generation_config": transformers.GenerationConfig(max_new_tokens=3, pad_token_id=0)},
        {"eos_token_id": [1, 5, 9]},
        {"no_repeat_ngram_size": 2, "use_cache": True},
        {"suppress_tokens": [1, 5, 400], "begin_suppress_tokens": [12]},
        {"bad_words_ids": [[400], [12, 77], [511]]},
        {"stopping_criteria": transformers.StoppingCriteriaList([lambda ids, scores: ids[:, -1] > 40])},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings(settings: dict[str, Any], inputs: Any, theirs: Any, ours: Any) -> None:
    call = {**({} if "generation_config" in settings else LIMIT), **settings}
    assert torch.equal(ours.generate(**inputs, **call), theirs.generate(**inputs, **call))
    assert ours.generation_engine.name == "native"


@newer
def test_generation_config_set_after_loading_counts(inputs: Any, ours: Any) -> None:
    ours.generation_config.max_new_tokens = 2
    assert ours.generate(**inputs).shape[1] == inputs["input_ids"].shape[1] + 2
    ours.generation_config.max_new_tokens = 4
    assert ours.generate(**inputs).shape[1] == inputs["input_ids"].shape[1] + 4
    assert ours.generation_engine.name == "native"


@newer
def test_changed_weights_count(inputs: Any, theirs: Any, ours: Any) -> None:
    first = ours.generate(**inputs, **LIMIT)
    changed = copy.deepcopy(theirs)
    for model in (changed, ours):
        with torch.no_grad():
            model.model.text_model.layers[0].mlp.down_proj.weight.mul_(-1.0)
    second = ours.generate(**inputs, **LIMIT)
    assert ours.generation_engine.name == "native"
    assert torch.equal(second, changed.generate(**inputs, **LIMIT))
    assert first.shape != second.shape or not torch.equal(first, second)


def _with_hook(model: Any) -> Any:
    model.lm_head.register_forward_hook(lambda module, inputs, output: output.flip(-1))
    return model


class _Doubled(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def _with_own_module(model: Any) -> Any:
    layer = model.model.text_model.layers[0].self_attn
    own = _Doubled(layer.q_proj.in_features, layer.q_proj.out_features, bias=False)
    own.weight = layer.q_proj.weight
    layer.q_proj = own
    return model


@newer
@pytest.mark.parametrize(
    ("change", "settings", "reason"),
    [
        (_with_hook, {}, "module 'lm_head' has forward hooks"),
        (_with_own_module, {}, "module 'model.text_model.layers.0.self_attn.q_proj' is a"),
        (lambda model: model.to(torch.float16), {}, "torch.float16"),
        (lambda model: model, {"num_beams": 2}, "num_beams is 2"),
        (lambda model: model, {"return_dict_in_generate": True}, "return_dict_in_generate"),
        (lambda model: model, {"sequence_bias": [[[7], -9.0]]}, "sequence_bias"),
    ],
    ids=["hook", "own module", "float16", "beams", "dict", "bias"],
)
def test_what_the_engine_cannot_serve_transformers_does(
    change: Callable[[Any], Any],
    settings: dict[str, Any],
    reason: str,
    inputs: Any,
    theirs: Any,
    ours: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = change(copy.deepcopy(theirs)).generate(**inputs, **LIMIT, **settings)
    with caplog.at_level(logging.WARNING, "faster_smolvlm"):
        model = change(ours)
        given = [model.generate(**inputs, **LIMIT, **settings) for _ in range(2)][-1]
    assert torch.equal(getattr(given, "sequences", given), getattr(expected, "sequences", expected))
    assert type(given) is type(expected)
    assert ours.generation_engine.name == "transformers"
    assert reason in ours.generation_engine.reason
    assert sum(reason in record.getMessage() for record in caplog.records) == 1


@newer
def test_training_mode_matters_where_something_is_dropped_out(inputs: Any, theirs: Any, ours: Any) -> None:
    assert torch.equal(ours.train().generate(**inputs, **LIMIT), theirs.generate(**inputs, **LIMIT))
    assert ours.generation_engine.name == "native"
    assert ours.training
    dropping = ours.model.text_model.layers[1].self_attn
    dropping.attention_dropout = 0.5
    ours.generate(**inputs, max_new_tokens=1)
    assert ours.generation_engine.name == "transformers"
    assert "layers.1.self_attn' is in training mode and drops values out" in ours.generation_engine.reason
    ours.eval().generate(**inputs, max_new_tokens=1)
    assert ours.generation_engine.name == "native"


def test_wrong_arguments_are_wrong_to_transformers(inputs: Any, theirs: Any, ours: Any) -> None:
    with pytest.raises(ValueError, match="no_such_argument") as expected:
        theirs.generate(**inputs, no_such_argument=1)
    with pytest.raises(ValueError, match="no_such_argument") as given:
        ours.generate(**inputs, no_such_argument=1)
    assert str(given.value) == str(expected.value)


@newer
def test_a_streamer_gets_every_token(inputs: Any, theirs: Any, ours: Any) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    one = {name: value[:1] for name, value in inputs.items()}
    texts = []
    for model in (theirs, ours):
        streamer = transformers.TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        model.generate(**one, **LIMIT, streamer=streamer)
        texts.append("".join(streamer))
    assert texts[0] == texts[1]
    assert texts[0]
    assert ours.generation_engine.name == "native"


@newer
def test_what_one_side_saves_the_other_loads(tmp_path: Path, inputs: Any, theirs: Any, ours: Any) -> None:
    expected = ours.generate(**inputs, **LIMIT)
    for model, name in ((theirs, "theirs"), (ours, "ours")):
        model.save_pretrained(tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "ours").iterdir())
    for name in names:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name
    own = faster_smolvlm.AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert torch.equal(own.generate(**inputs, **LIMIT), expected)
    own.save_pretrained(tmp_path / "own")
    back = accelerate(transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "own", dtype=torch.float32))
    assert torch.equal(back.generate(**inputs, **LIMIT), expected)
    assert back.generation_engine.name == "native"


@newer
def test_idefics3(tmp_path: Path, inputs: Any, theirs: Any) -> None:
    config = transformers.Idefics3Config(**{**theirs.config.to_dict(), "model_type": "idefics3"})
    model = transformers.Idefics3ForConditionalGeneration(config).eval()
    model.load_state_dict(theirs.state_dict())
    model.generation_config = copy.deepcopy(theirs.generation_config)
    expected = model.generate(**inputs, **LIMIT)
    assert torch.equal(accelerate(model).generate(**inputs, **LIMIT), expected)
    assert model.generation_engine.name == "native"
    model.save_pretrained(tmp_path)
    assert transformers.AutoConfig.from_pretrained(tmp_path).architectures == ["Idefics3ForConditionalGeneration"]


@newer
def test_enable_covers_models(inputs: Any, theirs: Any) -> None:
    enable()
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(DEMO, dtype=torch.float32)
        direct = load()
    finally:
        disable()
    for loaded in (model, direct):
        assert torch.equal(loaded.generate(**inputs, **LIMIT), theirs.generate(**inputs, **LIMIT))
        assert loaded.generation_engine.name == "native"
