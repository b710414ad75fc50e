"""What trainers do with the model: modules wrapped around its own, and the methods that they call."""

from __future__ import annotations

from pathlib import Path

import faster_smolvlm
import pytest
import torch
import transformers
from faster_smolvlm import AutoModelForImageTextToText
from torch import Tensor, nn

pytestmark = pytest.mark.parity


class Wrapper(nn.Module):
    """As the layers of peft: the module inside, and no `num_embeddings`."""

    def __init__(self, base: nn.Module, *, weight: bool) -> None:
        super().__init__()
        self.base_layer = base
        self.shows_weight = weight

    def __getattr__(self, name: str) -> object:
        if name == "weight" and self.shows_weight:
            return self.base_layer.weight
        return super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base_layer(x)
        return out


@pytest.mark.parametrize("weight", [True, False])
def test_generate_with_wrapped_embeddings_and_head(weight: bool) -> None:
    model = AutoModelForImageTextToText.from_pretrained("demo")
    ids = torch.tensor([[1, 400]])
    expected = model.generate(input_ids=ids, max_new_tokens=4)
    model.set_input_embeddings(Wrapper(model.get_input_embeddings(), weight=weight))
    model.set_output_embeddings(Wrapper(model.get_output_embeddings(), weight=weight))
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=4), expected)
    with pytest.raises(ValueError, match="ids from 0 to 511"):
        model.generate(input_ids=torch.tensor([[1, 512]]), max_new_tokens=4)


def test_counts_of_parameters_are_those_of_transformers() -> None:
    demo_dir = Path(faster_smolvlm.__file__).parent / "demo"
    mine = AutoModelForImageTextToText.from_pretrained(demo_dir)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(demo_dir)
    for model in (mine, theirs):
        model.get_input_embeddings().weight.requires_grad_(False)
    for trainable in (False, True):
        for without in (False, True):
            found = mine.num_parameters(only_trainable=trainable, exclude_embeddings=without)
            assert found == theirs.num_parameters(only_trainable=trainable, exclude_embeddings=without)


ADAPTERS: dict[str, tuple[str, dict[str, object]]] = {
    "embeddings": ("LoraConfig", {"r": 4, "target_modules": ["embed_tokens"]}),
    "head": ("LoraConfig", {"r": 4, "target_modules": ["lm_head"]}),
    "tied": ("LoraConfig", {"r": 4, "target_modules": ["embed_tokens"], "ensure_weight_tying": True}),
    "saved": (
        "LoraConfig",
        {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "tokens": ("LoraConfig", {"r": 4, "target_modules": ["q_proj"], "trainable_token_indices": [1, 400, 511]}),
    "dora": ("LoraConfig", {"r": 4, "use_dora": True, "target_modules": ["embed_tokens", "lm_head"]}),
}


def test_the_tied_weights_have_the_names_of_transformers() -> None:
    mine = AutoModelForImageTextToText.from_pretrained("demo")
    assert mine._tied_weights_keys == transformers.SmolVLMForConditionalGeneration._tied_weights_keys


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_of_peft_answer_as_on_transformers(name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    kind, options = ADAPTERS[name]
    demo_dir = Path(faster_smolvlm.__file__).parent / "demo"
    inputs = {"input_ids": torch.tensor([[1, 400, 401]]), "max_new_tokens": 6, "do_sample": False}
    found = []
    for home in (AutoModelForImageTextToText, transformers.AutoModelForImageTextToText):
        torch.manual_seed(0)
        model = peft.get_peft_model(home.from_pretrained(demo_dir), getattr(peft, kind)(**options)).eval()
        draws = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for _, parameter in sorted(model.named_parameters()):
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.15)
        with torch.no_grad():
            logits = model(input_ids=inputs["input_ids"]).logits
        answers = [model.generate(**inputs)]
        with model.disable_adapter():
            answers.append(model.generate(**inputs))
        folder = tmp_path / home.__module__.partition(".")[0]
        model.save_pretrained(folder)
        answers.append(peft.PeftModel.from_pretrained(home.from_pretrained(demo_dir), folder).generate(**inputs))
        merged = model.merge_and_unload()
        answers.append(merged.generate(**inputs))
        merged.save_pretrained(folder / "merged")
        answers.append(home.from_pretrained(folder / "merged").generate(**inputs))
        found.append((logits, answers))
    (mine, my_answers), (theirs, their_answers) = found
    torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-4)
    for ours, expected in zip(my_answers, their_answers, strict=True):
        assert torch.equal(ours, expected)
