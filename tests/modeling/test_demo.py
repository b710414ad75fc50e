"""The demo checkpoint gives the same answers here and in Transformers, id for id, in float32."""

from __future__ import annotations

from pathlib import Path

import faster_smolvlm
import pytest
import torch

from examples.train_demo.evaluate import Answer, answer
from examples.train_demo.heldout import Item, batches, clip_items, encode, scene_items

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")
DEMO = str(Path(faster_smolvlm.__file__).parent / "demo")


@pytest.fixture(scope="module", params=["scenes", "clips"])
def items(request: pytest.FixtureRequest) -> list[Item]:
    return scene_items(100, seed=7) if request.param == "scenes" else clip_items(12, seed=7)


def answers(library: object, items: list[Item]) -> list[Answer]:
    processor = library.AutoProcessor.from_pretrained(DEMO)  # type: ignore[attr-defined]
    model = library.AutoModelForImageTextToText.from_pretrained(DEMO, dtype=torch.float32)  # type: ignore[attr-defined]
    return answer(processor, model.eval(), items, size=64)


def test_inputs_are_equal(items: list[Item]) -> None:
    ours = faster_smolvlm.AutoProcessor.from_pretrained(DEMO)
    theirs = transformers.AutoProcessor.from_pretrained(DEMO)
    for chosen in batches(items[:60], 8):
        batch = [items[i] for i in chosen]
        got, expected = encode(ours, batch), encode(theirs, batch)
        assert torch.equal(got["input_ids"], expected["input_ids"])
        assert torch.equal(got["attention_mask"], expected["attention_mask"])
        torch.testing.assert_close(got["pixel_values"], expected["pixel_values"], rtol=0, atol=1e-6)


def test_greedy_ids_are_equal(items: list[Item]) -> None:
    differing = [
        (item.question, got.text, expected.text, min(expected.margins))
        for item, got, expected in zip(items, answers(faster_smolvlm, items), answers(transformers, items), strict=True)
        if got.ids != expected.ids
    ]
    assert not differing
