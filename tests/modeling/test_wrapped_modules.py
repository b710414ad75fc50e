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
