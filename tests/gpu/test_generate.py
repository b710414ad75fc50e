"""`generate` through the captured graph on a real GPU: the ids of the eager modules. Skipped where there is none."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs a CUDA or ROCm device, and the interpreter off", allow_module_level=True)

from pathlib import Path

import faster_smolvlm
from faster_smolvlm import SmolVLMForConditionalGeneration
from faster_smolvlm.modeling import generate as mixin
from faster_smolvlm.modeling import ops
from faster_smolvlm.modeling.engines.eager import TorchEngine

DEMO = Path(faster_smolvlm.__file__).with_name("demo")


@pytest.mark.parametrize("rows", [1, 3])
def test_greedy_ids_are_those_of_the_modules(monkeypatch, rows):
    model = SmolVLMForConditionalGeneration.from_pretrained(DEMO).eval().cuda()
    torch.manual_seed(0)
    ids = torch.randint(10, 400, (rows, 40), device="cuda")
    mask = torch.ones_like(ids)
    mask[1:, :7] = 0
    arguments = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 60, "do_sample": False}
    call = model.start_generation(**arguments)
    for _ in call:
        pass
    assert call.engine.name == "graph"

    def eager(model, inputs, *, max_new_tokens, rows, use_cache, keep_cache):
        return TorchEngine(model, inputs, max_new_tokens=max_new_tokens)

    monkeypatch.setattr(mixin, "make_engine", eager)
    with ops.use("torch"):
        expected = model.generate(**arguments)
    assert torch.equal(call.ids, expected)
