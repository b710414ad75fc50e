"""The captured decode step on a real GPU: what a recorded capture on a CPU cannot show. Skipped where there is none."""

from __future__ import annotations

import os
import threading

import pytest
import torch

if not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs a CUDA or ROCm device, and the interpreter off", allow_module_level=True)

from faster_smolvlm.kernels.launch import supports_pdl
from faster_smolvlm.modeling.engines.decode_graph import DecodeGraph
from faster_smolvlm.modeling.engines.graph import to_host

from tests.helpers.graph_models import prompts, tiny_model

TEXT_256M = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49280, "max_position_embeddings": 8192,
}  # fmt: skip
STEPS = 200


@pytest.fixture(autouse=True)
def exact():
    torch.set_float32_matmul_precision("highest")  # images that allow TF32 by default make other tokens


def run(model, pdl: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Make STEPS tokens after a random cache; return them with the last logits."""
    graph = DecodeGraph(model)
    graph._pdl = pdl
    assert graph.acquire()
    cache = graph.reserve(1, 300 + STEPS)
    generator = torch.Generator("cuda").manual_seed(1)
    for buffer in (*cache.keys, *cache.values):
        buffer[:, :, :300] = torch.randn(buffer[:, :, :300].shape, device="cuda", generator=generator).to(buffer.dtype)
    cache._lengths = [300] * len(cache.keys)
    graph.begin(torch.zeros(1, dtype=torch.int32, device="cuda"))
    tokens = graph.greedy(torch.tensor([7], device="cuda"), STEPS)
    return tokens, graph._logits[:1].clone()


def test_overlapping_launches_change_no_bit():
    """Every kernel sums in a fixed order, so a graph whose kernels overlap gives the bits of one whose do not."""
    if not supports_pdl(torch.device("cuda")):
        pytest.skip("programmatic dependent launch needs compute capability 9.0")
    model = tiny_model(**TEXT_256M).to("cuda", torch.bfloat16)
    tokens, logits = run(model, pdl=False)
    for _ in range(3):
        again, following = run(model, pdl=True)
        assert torch.equal(tokens, again)
        assert torch.equal(logits, following)


def generate(model, rows: int = 1, **arguments):
    inputs = {name: tensor.to(model.device) for name, tensor in prompts(rows).items()}
    ids = model.generate(**inputs, **({"max_new_tokens": 20, "do_sample": False} | arguments))
    assert model.generation_engine.name == "graph"
    return ids


@pytest.fixture(scope="module")
def model():
    return tiny_model().cuda()


def test_modes_take_turns(model):
    expected = generate(model)
    with torch.inference_mode():
        assert torch.equal(generate(model), expected)
    assert torch.equal(generate(model, max_new_tokens=600)[:, : expected.shape[1]], expected)


def test_sixteen_rows_and_rows_that_stop(model):
    free = generate(model, 16)
    stopped = generate(model, 16, eos_token_id=[int(free[3, 9]), int(free[9, 14])], pad_token_id=0)
    for row, expected in zip(stopped, free, strict=True):
        length = int((row != 0).nonzero().max()) + 1
        assert torch.equal(row[6:length], expected[6:length])


def test_drawing_with_a_seed(model):
    arguments = {"do_sample": True, "temperature": 0.8, "seed": 5}
    assert torch.equal(generate(model, 2, **arguments), generate(model, 2, **arguments))


def test_another_thread_allocates_and_decodes_while_a_step_is_captured(model):
    """Its stream is another one, and a capture that looked at all threads would break its allocations."""
    expected, failed, stop = generate(model), [], threading.Event()

    def allocate():
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                while not stop.is_set():
                    torch.empty(1 << 20, device="cuda")
                    torch.empty(1 << 16, pin_memory=True)
        except RuntimeError as error:
            failed.append(error)

    thread = threading.Thread(target=allocate)
    thread.start()
    try:
        for seed in range(4):
            other = tiny_model(seed).cuda()
            generate(other)
    finally:
        stop.set()
        thread.join()
    assert not failed
    with torch.cuda.stream(torch.cuda.Stream()):
        assert torch.equal(generate(model), expected)


def test_memory_goes_with_the_model():
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model = tiny_model().cuda()
    generate(model)
    del model
    assert torch.cuda.memory_allocated() == before


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_model_on_a_device_that_is_not_current(model):
    expected = generate(model).cpu()
    second = tiny_model().to("cuda:1")
    assert torch.equal(generate(second).cpu(), expected)
    assert torch.equal(generate(second.to("cuda:0")).cpu(), expected)
    big = torch.arange(1 << 24, device="cuda:1")
    assert torch.equal(to_host(big * 2)(), torch.arange(1 << 24) * 2)
