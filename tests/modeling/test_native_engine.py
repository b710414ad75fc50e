"""`generate` of the torch model on the native engine: when that serves, and that it never serves old weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import SmolVLMForConditionalGeneration
from faster_smolvlm.modeling.engines.known_modules import is_known
from faster_smolvlm.modeling.modeling_text import SmolVLMTextMLP
from torch import Tensor, nn

from tests.helpers.native_models import Saved, prompt

Make = Callable[[str], Saved]


@pytest.fixture
def model(random_model: Make) -> SmolVLMForConditionalGeneration:
    made = SmolVLMForConditionalGeneration.from_pretrained(random_model("odd").directory)
    made.generation_config.eos_token_id = None
    return made


@pytest.fixture(scope="module")
def inputs(random_model: Make) -> dict[str, Tensor]:
    """Two prompts, the second padded on the left, with a picture each."""
    first, second = (prompt(random_model("odd").model.config, 1, 20 + words, seed=words) for words in (0, 7))
    gap = second["input_ids"].shape[1] - first["input_ids"].shape[1]
    padded = {key: np.pad(first[key], ((0, 0), (gap, 0)), constant_values=0) for key in ("input_ids", "attention_mask")}
    both = {**{key: np.concatenate([padded.get(key, first[key]), second[key]]) for key in first}}
    return {key: torch.from_numpy(value) for key, value in both.items()}


def reason(model: SmolVLMForConditionalGeneration) -> str:
    served = model.generation_engine
    assert served is not None
    assert (served.name == "native") == (served.reason == "")
    return served.reason


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_sample": True, "seed": 4, "num_return_sequences": 3},
        {"repetition_penalty": 1.3},
        {"prompt_lookup_num_tokens": 8},
        {"logits_processor": [lambda ids, scores: scores - scores[:, :1] * (torch.arange(scores.shape[1]) % 3)]},
        {"stopping_criteria": [lambda ids, scores: ids[:, -1] % 5 == 0]},
    ],
)
def test_either_engine_gives_the_same_tokens(
    model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor], settings: dict[str, Any]
) -> None:
    expected = model.generate(**inputs, max_new_tokens=24, engine="torch", **settings)
    assert reason(model) == "it was asked to leave it to torch"
    assert torch.equal(model.generate(**inputs, max_new_tokens=24, engine="native", **settings), expected)
    assert torch.equal(model.generate(**inputs, max_new_tokens=24, **settings), expected)
    assert reason(model) == ""


def test_a_head_that_is_tied_after_loading_is_followed(
    model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor]
) -> None:
    before = model.generate(**inputs, max_new_tokens=24)
    model.lm_head.weight = model.get_input_embeddings().weight
    expected = model.generate(**inputs, max_new_tokens=24, engine="torch")
    assert not torch.equal(expected, before)
    assert torch.equal(model.generate(**inputs, max_new_tokens=24), expected)
    assert reason(model) == ""


def test_bfloat16_serves_too(model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor]) -> None:
    model.bfloat16().generate(**inputs, max_new_tokens=2)
    assert reason(model) == ""


def test_the_environment_forces_an_engine(
    model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
    model.generate(**inputs, max_new_tokens=1)
    assert reason(model) == "it was asked to leave it to torch"
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", "native")
    with pytest.raises(ValueError, match="cannot serve this call: num_beams is 2"):
        model.generate(**inputs, max_new_tokens=1, num_beams=2)
    with pytest.raises(ValueError, match="abacus"):
        model.generate(**inputs, max_new_tokens=1, engine="abacus")


class Lora(nn.Linear):
    """A linear layer that somebody else wrote."""


def replace_module(model: SmolVLMForConditionalGeneration) -> None:
    old = model.model.text_model.layers[0].mlp.up_proj
    model.model.text_model.layers[0].mlp.up_proj = Lora(old.in_features, old.out_features, bias=False)


def own_forward(model: SmolVLMForConditionalGeneration) -> None:
    module = model.model.connector
    module.forward = module.forward


CHANGES: dict[str, Callable[[SmolVLMForConditionalGeneration], Any]] = {
    "training mode": lambda model: model.train(),
    "float64": lambda model: model.double(),
    "takes float32 or bfloat16 for all": lambda model: model.model.connector.bfloat16(),
    "'model.text_model.norm' has forward hooks": lambda model: model.model.text_model.norm.register_forward_hook(print),
    "a Lora, which only torch can call": replace_module,
    "'model.connector' has a forward of its own": own_forward,
    "attn_implementation is 'eager'": lambda model: model.set_attn_implementation("eager"),
    "holds NaN": lambda model: model.lm_head.weight.data[3].fill_(float("nan")),
}


@pytest.mark.parametrize("why", CHANGES)
def test_models_that_torch_has_to_serve(
    model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    CHANGES[why](model)
    inputs = {**inputs, "pixel_values": inputs["pixel_values"].to(model.dtype)}
    try:
        model.generate(**inputs, max_new_tokens=1)
    except RuntimeError:  # mixed dtypes are beyond torch as well
        assert "for all" in why
    assert why in reason(model)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"num_beams": 2}, "num_beams is 2"),
        ({"use_cache": False}, "use_cache is False"),
        ({"return_dict_in_generate": True, "output_scores": True}, "return_dict_in_generate"),
    ],
)
def test_calls_that_torch_has_to_serve(
    model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor], settings: dict[str, Any], why: str
) -> None:
    model.generate(**inputs, max_new_tokens=2, **settings)
    assert why in reason(model)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    model.generate(inputs_embeds=embeds, max_new_tokens=1)
    assert reason(model) == "the prompt is inputs_embeds"
    with torch.autocast("cpu", torch.bfloat16):
        model.generate(**inputs, max_new_tokens=1)
    assert reason(model) == "autocast is on"
    with pytest.warns(UserWarning, match="padded on the right"):
        model.generate(
            inputs["input_ids"][:, :9], attention_mask=torch.tensor([[1] * 9, [1] * 8 + [0]]), max_new_tokens=1
        )
    assert "not on the left" in reason(model)


def under_no_grad(model: SmolVLMForConditionalGeneration) -> None:
    with torch.no_grad():
        model.model.text_model.layers[1].mlp.down_proj.weight.mul_(-2)


def through_data(model: SmolVLMForConditionalGeneration) -> None:
    """As peft merges an adapter: the version of the parameter does not tell."""
    weight = model.model.vision_model.encoder.layers[0].mlp.fc2.weight
    version = weight._version
    weight.data.mul_(-3)
    assert weight._version == version


def step_of_an_optimizer(model: SmolVLMForConditionalGeneration) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    ids = torch.arange(4, 40)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


def other_storage(model: SmolVLMForConditionalGeneration) -> None:
    embedding = model.get_input_embeddings()
    embedding.weight = nn.Parameter(embedding.weight.detach().flip(0).clone())


@pytest.mark.parametrize("change", [under_no_grad, through_data, step_of_an_optimizer, other_storage])
def test_changed_weights_are_noticed(
    model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor], change: Callable[[Any], None]
) -> None:
    before = model.generate(**inputs, max_new_tokens=24, engine="native")
    change(model)
    after = model.generate(**inputs, max_new_tokens=24, engine="native")
    assert torch.equal(after, model.generate(**inputs, max_new_tokens=24, engine="torch"))
    assert not torch.equal(after, before)


def test_the_classes_of_the_model_are_known_and_no_others(
    model: SmolVLMForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {type(module) for module in model.modules()}
    assert len(kinds) > 15
    assert all(map(is_known, kinds))
    assert not is_known(type("Subclass", (SmolVLMTextMLP,), {}))
    monkeypatch.setattr(SmolVLMTextMLP, "forward", lambda self, x: x)
    assert not is_known(SmolVLMTextMLP)


def test_unchanged_weights_are_packed_once(model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor]) -> None:
    model.generate(**inputs, max_new_tokens=1)
    packed = model._native._model
    model.generate(**inputs, max_new_tokens=3)
    assert packed is not None
    assert model._native._model is packed
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other._native._model is None
        assert torch.equal(other.generate(**inputs, max_new_tokens=5), model.generate(**inputs, max_new_tokens=5))


def test_a_large_batch_and_long_answers_make_the_cache_grow(model: SmolVLMForConditionalGeneration) -> None:
    ids = torch.arange(3, 33).repeat(9, 1)
    expected = model.generate(ids, max_new_tokens=650, engine="torch")
    assert torch.equal(model.generate(ids, max_new_tokens=650, engine="native"), expected)
    model.generate(ids[:1, :5], max_new_tokens=2000)  # torch knows no limit; the engine may not reach it
    assert model.generation_engine is not None


def test_a_row_ends_where_the_native_engine_has_no_more_positions(model: SmolVLMForConditionalGeneration) -> None:
    limit = 2 * model.config.text_config.max_position_embeddings
    ids = torch.arange(3, 33).repeat(1, limit // 30 + 1)[:, : limit - 6]
    answer = model.generate(ids, max_new_tokens=40, engine="native")
    assert answer.shape[1] == limit + 1, "the last token needs no position"
    assert torch.equal(answer, model.generate(ids, max_new_tokens=7, engine="torch"))


def test_closing_a_streamer_ends_the_call_and_frees_the_cache(
    model: SmolVLMForConditionalGeneration, inputs: dict[str, Tensor]
) -> None:
    class Closing:
        closed = False
        tokens = 0

        def put(self, value: Tensor) -> None:
            self.tokens += 1
            self.closed = self.tokens == 4  # the prompt and three tokens

        def end(self) -> None:
            pass

    ids = model.generate(**inputs, streamer=Closing(), max_new_tokens=500, engine="native")
    assert ids.shape[1] == inputs["input_ids"].shape[1] + 3
    assert model._native._model is not None
    free, pages, _ = model._native._model.rust.cache_pages()
    assert free == pages
