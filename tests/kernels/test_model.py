"""The whole model with every kernel in the interpreter: logits of the plain modules, and their greedy ids."""

from __future__ import annotations

from pathlib import Path

import faster_smolvlm
import pytest
import torch
from faster_smolvlm import SmolVLMForConditionalGeneration
from faster_smolvlm.kernels import matvec
from faster_smolvlm.kernels.launch import next_power_of_2
from faster_smolvlm.modeling import ops
from faster_smolvlm.modeling.engines.decode_graph import DecodeGraph

from tests.helpers.recorded_capture import RecordedCapture

DEMO = Path(faster_smolvlm.__file__).with_name("demo")
SCENES = 20


@pytest.fixture(scope="module")
def model() -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration.from_pretrained(DEMO).eval()


@pytest.fixture(scope="module")
def scenes() -> list[dict[str, torch.Tensor]]:
    """Pictures of one to three coloured shapes, and the question what is in them; every fifth is cut into tiles."""
    import numpy as np
    from faster_smolvlm import AutoProcessor
    from PIL import Image, ImageDraw

    processor = AutoProcessor.from_pretrained(DEMO)
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True)
    random = np.random.default_rng(0)
    made = []
    for scene in range(SCENES):
        picture = Image.new("RGB", (128, 128), tuple(random.integers(180, 256, 3).tolist()))
        draw = ImageDraw.Draw(picture)
        for _ in range(random.integers(1, 4)):
            x, y, size = random.integers(8, 88), random.integers(8, 88), random.integers(16, 32)
            shape = (draw.ellipse, draw.rectangle)[random.integers(2)]
            shape((x, y, x + size, y + size), fill=tuple(random.integers(0, 160, 3).tolist()))
        made.append(
            dict(processor(text=prompt, images=[[picture]], return_tensors="pt", do_image_splitting=scene % 5 == 0))
        )
    return made


def kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the plain versions of what the kernels do fail, so that a silent way around them is seen."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("plain torch was used in place of a kernel")

    for name in ("rms_norm", "layer_norm", "rotate", "attention", "pixel_shuffle"):
        monkeypatch.setattr(ops.reference, name, fail)
    monkeypatch.setattr(ops, "_sdpa", fail)


@torch.no_grad()
def test_logits_of_every_position(model, scenes, monkeypatch):
    expected = model(**scenes[0]).logits
    with ops.use("triton"), monkeypatch.context() as patch:
        kernels_only(patch)
        got = model(**scenes[0]).logits
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_the_forward_compiles_without_graph_breaks(model, scenes):
    """Left padding and a padding picture: what a graph must not decide by looking at values."""
    first, second = scenes[0], scenes[5]
    more = 3
    inputs = {
        "input_ids": torch.cat((torch.nn.functional.pad(first["input_ids"], (more, 0), value=2)[:, :-more], second["input_ids"])),
        "pixel_values": torch.cat((first["pixel_values"], second["pixel_values"])),
        "pixel_attention_mask": torch.cat((first["pixel_attention_mask"], second["pixel_attention_mask"])),
    }  # fmt: skip
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][0, :more] = 0
    inputs["pixel_values"] = torch.nn.functional.pad(inputs["pixel_values"], (0, 0) * 3 + (0, 1))
    inputs["pixel_attention_mask"] = torch.nn.functional.pad(inputs["pixel_attention_mask"], (0, 0) * 2 + (0, 1))
    expected = model(**inputs, use_cache=False)
    with ops.use("triton"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        got = compiled(**inputs, use_cache=False)
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
    seen = inputs["attention_mask"].bool()
    assert (got.logits - expected.logits)[seen].abs().max() <= 1e-4 * expected.logits[seen].abs().max()
    inputs["input_ids"][1, -1] = model.config.image_token_id
    with ops.use("triton"), pytest.raises((RuntimeError, ValueError), match="do not match"):
        compiled(**inputs, use_cache=False)


@pytest.mark.parametrize("part", range(4))
@torch.no_grad()
def test_greedy_ids_on_twenty_scenes(model, scenes, monkeypatch, part):
    # One tile of columns a matrix: the interpreter pays per operation. test_decode.py walks several.
    monkeypatch.setattr(matvec, "column_tile", lambda k: (next_power_of_2(k), False))
    graph, ends = DecodeGraph(model, capture=RecordedCapture()), set()
    for scene in scenes[part::4]:
        expected = model.generate(**scene, max_new_tokens=6, do_sample=False)
        length = scene["input_ids"].shape[1]
        assert graph.acquire()
        with ops.use("triton"):
            logits = model(**scene, past_key_values=graph.reserve(1, length + 8), logits_to_keep=1).logits
        token = logits[:, -1].argmax(-1)
        graph.begin(torch.zeros(1, dtype=torch.int32))
        ids = torch.cat((token, graph.greedy(token, 5)[0]))
        graph.release()
        answer = expected[0, length:]
        assert torch.equal(ids[: len(answer)], answer)
        ends.add(tuple(answer.tolist()))
    assert len(ends) > 1, "the same answer to every scene shows little"
