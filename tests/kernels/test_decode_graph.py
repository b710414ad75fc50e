"""The captured decode step on a CPU: kernels in the interpreter, a capture that replays recorded launches and nothing
else.
"""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm.modeling import generate as mixin
from faster_smolvlm.modeling.engines import decode_graph
from faster_smolvlm.modeling.engines import graph as graph_engine
from faster_smolvlm.modeling.engines.decode_graph import DecodeGraph
from faster_smolvlm.modeling.engines.decode_weights import UnsupportedModelError, gather, quantize

from tests.helpers.graph_models import prompts, tiny_model
from tests.helpers.recorded_capture import RecordedCapture


@pytest.fixture
def through_graph(monkeypatch, small_buckets):
    """Return (model, capture, engines): `generate` of the model goes through its decode graph."""
    model, capture, engines = tiny_model(), RecordedCapture(), []
    graph = DecodeGraph(model, capture=capture)

    def make_engine(model, inputs, *, max_new_tokens, rows, use_cache, keep_cache):
        engines.append(graph_engine.GraphEngine(model, inputs, max_new_tokens=max_new_tokens, graph=graph))
        return engines[-1]

    monkeypatch.setattr(mixin, "make_engine", make_engine)
    return model, capture, engines


def eager(monkeypatch, model, inputs, **arguments):
    with monkeypatch.context() as patch:
        patch.setattr(mixin, "make_engine", graph_engine.make_engine)
        return model.generate(**inputs, **arguments)


def test_greedy_ids_are_those_of_the_modules_across_buckets(monkeypatch, through_graph):
    model, capture, engines = through_graph
    arguments = {"max_new_tokens": 14, "do_sample": False}
    expected = eager(monkeypatch, model, prompts(), **arguments)
    assert len(set(expected[0].tolist())) > 5, "the model repeats itself: the test would see little"
    assert torch.equal(model.generate(**prompts(), **arguments), expected)
    assert engines[-1].name == "graph"
    captures = capture.captures
    assert captures == 2, "one capture a bucket"
    assert torch.equal(model.generate(**prompts(), **arguments), expected)
    # The smaller bucket lies in the arena of the larger now, whose growth had dropped its capture.
    assert capture.captures == captures + 1
    assert torch.equal(model.generate(**prompts(), max_new_tokens=3, do_sample=False), expected[:, :9])
    assert capture.captures == captures + 1


def test_a_padded_batch_that_stops_in_mid_block_and_shrinks(monkeypatch, through_graph):
    model, capture, _ = through_graph
    free = eager(monkeypatch, model, prompts(4), max_new_tokens=9, do_sample=False)
    stops = sorted({int(free[row, 6 + at]) for row, at in ((0, 1), (1, 4), (3, 7))})
    arguments = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": stops, "pad_token_id": 0}
    expected = eager(monkeypatch, model, prompts(4), **arguments)
    assert torch.equal(model.generate(**prompts(4), **arguments), expected)
    assert capture.captures > 1


@pytest.mark.parametrize(("fails_after", "draws"), [(0, False), (1, False), (1, True)])
def test_a_capture_that_fails_leaves_the_modules(monkeypatch, through_graph, caplog, fails_after, draws):
    """At the start, at the next bucket, or when rows are taken out: the answer stays, and the log says why."""
    model, capture, engines = through_graph
    capture.fails_after = fails_after
    free = eager(monkeypatch, model, prompts(3), max_new_tokens=7, do_sample=False)
    arguments = {
        "max_new_tokens": 7,
        "do_sample": draws,
        "eos_token_id": [int(free[2, 8])],
        "pad_token_id": 0,
        "seed": 2 if draws else None,
    }
    expected = eager(monkeypatch, model, prompts(3), **arguments)
    assert torch.equal(model.generate(**prompts(3), **arguments), expected)
    assert engines[-1].name == "torch"
    assert "cannot be captured" in caplog.text
    assert "no memory for a graph" in caplog.text


class Reads(torch.overrides.TorchFunctionMode):
    """Counts what makes the host wait for the device, were the tensors on one: reading a value of theirs."""

    NAMES = frozenset({"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "nonzero"})

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.on_host = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in self.NAMES and args[0].untyped_storage().data_ptr() not in self.on_host:
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("draws", "most"), [(True, 1.0), (False, 1 / 3)])
def test_reads_of_the_device_per_token(monkeypatch, through_graph, draws, most):
    """One a token where tokens are drawn; one a block of three where the likeliest is taken."""
    model, _, engines = through_graph
    keep, reads = [], Reads()

    def to_host(block):
        copy = block.clone()
        keep.append(copy)

        def wait():
            reads.count += 1
            reads.on_host.add(copy.untyped_storage().data_ptr())
            return copy

        return wait

    monkeypatch.setattr(graph_engine, "to_host", to_host)
    arguments = {"do_sample": draws, "seed": 1 if draws else None}
    call = iter(model.start_generation(**prompts(2), max_new_tokens=9, **arguments))
    next(call)
    with reads:
        tokens = sum(1 for _ in zip(range(6), call, strict=False))
    assert engines[-1].name == "graph"
    assert tokens == 6
    assert 0 < reads.count <= most * tokens


def test_drawing_with_a_seed(monkeypatch, through_graph):
    model, capture, _ = through_graph
    arguments = {"max_new_tokens": 4, "do_sample": True, "temperature": 0.8, "seed": 5, "num_return_sequences": 2}
    expected = eager(monkeypatch, model, prompts(2), **arguments)
    assert torch.equal(model.generate(**prompts(2), **arguments), expected)
    assert capture.replays == 3


def test_logits_of_steps(through_graph, small_buckets):
    model, _, _ = through_graph
    graph = DecodeGraph(model, capture=RecordedCapture())
    ids = prompts()["input_ids"]
    assert graph.acquire()
    cache = graph.reserve(1, 12)
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
        graph.begin(torch.zeros(1, dtype=torch.int32))
        for step in range(3):
            token = torch.tensor([7 + step])
            ids = torch.cat((ids, token[None]), 1)
            expected = model(input_ids=ids, use_cache=False).logits[:, -1]
            assert torch.allclose(graph.step(token), expected, rtol=1e-4, atol=1e-4)


def test_a_second_generation_at_the_same_time_goes_without_the_graph(through_graph):
    model, _, engines = through_graph
    first = model.start_generation(**prompts(), max_new_tokens=4, do_sample=False)
    next(iter(first))
    second = model.generate(**prompts(), max_new_tokens=4, do_sample=False)
    assert [engine.name for engine in engines] == ["graph", "torch"]
    for _ in first:
        pass
    assert torch.equal(first.ids, second)


def test_weights_written_in_place_are_seen_and_replaced_ones_are_loaded(monkeypatch, through_graph):
    model, capture, _ = through_graph
    arguments = {"max_new_tokens": 4, "do_sample": False}
    model.generate(**prompts(), **arguments)
    captures = capture.captures
    with torch.no_grad():
        model.model.text_model.layers[0].mlp.up_proj.weight.mul_(-1.5)
    assert torch.equal(model.generate(**prompts(), **arguments), eager(monkeypatch, model, prompts(), **arguments))
    assert capture.captures == captures
    layer = model.model.text_model.layers[1].mlp
    layer.down_proj.weight = torch.nn.Parameter(torch.randn_like(layer.down_proj.weight))
    assert torch.equal(model.generate(**prompts(), **arguments), eager(monkeypatch, model, prompts(), **arguments))
    assert capture.captures > captures


def test_int8_weights(small_buckets):
    model = tiny_model()
    graph = DecodeGraph(model, int8=True, capture=RecordedCapture())
    ids, token = prompts()["input_ids"], torch.tensor([9])
    graph.acquire()
    cache = graph.reserve(1, 12)
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
        graph.begin(torch.zeros(1, dtype=torch.int32))
        got = graph.step(token)[0]
        exact = model(input_ids=torch.cat((ids, token[None]), 1), use_cache=False).logits[0, -1]
    assert torch.nn.functional.cosine_similarity(got, exact, dim=0) > 0.99
    assert not torch.allclose(got, exact, atol=1e-4)


def test_quantize():
    weight = torch.randn(5, 40)
    matrix = quantize(weight)
    assert matrix.weight.dtype == torch.int8
    assert (matrix.weight.float() * matrix.scale[:, None] - weight).abs().max() <= matrix.scale.max() / 2 + 1e-6
    assert matrix.weight.abs().amax(1).tolist() == [127] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.model.text_model.layers[0].mlp, "up_proj", torch.nn.Linear(32, 48)), "plain matrix"),
        (
            lambda m: m.model.text_model.layers[1].self_attn.q_proj.register_forward_hook(lambda *_: None),
            "plain matrix",
        ),
        (lambda m: m.lm_head.double(), "mixes"),
        (lambda m: m.double(), "float64"),
    ],
)
def test_models_that_the_kernels_do_not_serve(change, message):
    model = tiny_model()
    change(model)
    with pytest.raises(UnsupportedModelError, match=message):
        gather(model)


def test_a_head_dim_without_kernel():
    with pytest.raises(UnsupportedModelError, match="power of two"):
        gather(tiny_model(head_dim=24))


def test_limits_name_themselves(small_buckets):
    graph = DecodeGraph(tiny_model(), capture=RecordedCapture())
    with pytest.raises(ValueError, match="at most 16 rows, got 17"):
        graph.reserve(17, 8)
    with pytest.raises(ValueError, match="at most 32 tokens a row, got 33"):
        graph.reserve(1, 33)
    with pytest.raises(RuntimeError, match="reserve"):
        graph.step(torch.tensor([1]))
    cache = graph.reserve(2, 8)
    cache._lengths = [4, 4]
    with pytest.raises(ValueError, match="holds 2 rows, got 1"):
        graph.step(torch.tensor([1]))
    with pytest.raises(ValueError, match="cannot go back"):
        graph.rewind(9)


def test_a_cpu_model_is_served_by_the_modules():
    model = tiny_model()
    call = model.start_generation(**prompts(), max_new_tokens=2, do_sample=False)
    assert call.engine.name == "torch"
    with pytest.raises(UnsupportedModelError, match="CUDA or ROCm device, not 'cpu'"):
        decode_graph.decode_graph(model)


@pytest.mark.parametrize(
    ("mask", "rows", "cache", "message"),
    [
        ([[1, 1, 0]], 1, True, "not on the left"),
        ([[1, 0, 1]], 1, True, "not on the left"),
        (None, 17, True, "17 rows"),
        (None, 1, False, "turned off"),
    ],
)
def test_calls_that_go_without_the_graph(mask, rows, cache, message):
    inputs = graph_engine.ModelInputs(
        input_ids=torch.ones(1, 3, dtype=torch.int64), attention_mask=None if mask is None else torch.tensor(mask)
    )
    assert message in graph_engine._why_not_graph(inputs, rows, cache, 8)
    ok = graph_engine.ModelInputs(
        input_ids=torch.ones(1, 3, dtype=torch.int64), attention_mask=torch.tensor([[0, 1, 1]])
    )
    assert graph_engine._why_not_graph(ok, 1, True, 8) == ""
    assert "8192 tokens" in graph_engine._why_not_graph(ok, 1, True, 9000)
