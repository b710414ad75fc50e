"""What happens to a decode graph between the calls of `generate`: modes, changed models, copies, memory, other threads.

The calls choose their engine as on a GPU; the capture replays recorded launches in the interpreter.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import logging
import pickle
import threading
import weakref

import pytest
import torch
from faster_smolvlm.modeling.engines import capture as capturing
from faster_smolvlm.modeling.engines import decode_graph
from faster_smolvlm.modeling.engines import graph as graph_engine
from faster_smolvlm.modeling.engines.arena import Arena
from faster_smolvlm.modeling.engines.decode_graph import DecodeGraph

from tests.helpers import graph_models
from tests.helpers.recorded_capture import RecordedCapture

GREEDY = {"max_new_tokens": 3, "do_sample": False, "engine": "torch"}
LONG = 7
"""Tokens beyond the first bucket."""


def tiny_model():
    return graph_models.tiny_model(num_hidden_layers=1)


def prompts(rows=1):
    return graph_models.prompts(rows, 3)


@pytest.fixture
def as_on_a_gpu(monkeypatch, small_buckets):
    """Calls of `generate` decode through the graph that the model keeps; returns its captures."""
    captures = []

    def graph(model, **_):
        captures.append(RecordedCapture())
        return DecodeGraph(model, capture=captures[-1])

    monkeypatch.setattr(graph_engine, "_BLOCK", 1)
    monkeypatch.setattr(graph_engine, "_captures", lambda device: True)
    monkeypatch.setattr(graph_engine, "decode_graph", lambda model: model._decode_graph.of(model))
    monkeypatch.setattr(decode_graph, "DecodeGraph", graph)
    return captures


def with_modules(model, **arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_engine, "_captures", lambda device: False)
        return model.generate(**prompts(), **(GREEDY | arguments))


def served(model, inputs=None, **arguments):
    ids = model.generate(**(inputs or prompts()), **(GREEDY | arguments))
    return ids, model.generation_engine.name


@pytest.mark.parametrize("modes", [(torch.inference_mode, torch.no_grad), (torch.no_grad, torch.inference_mode)])
def test_calls_in_different_modes_share_a_graph(as_on_a_gpu, modes):
    """The second call needs another bucket, so buffers of the first are written to, and new ones are made."""
    model = tiny_model()
    expected = with_modules(model, max_new_tokens=LONG)
    for mode in (*modes, contextlib.nullcontext):
        for new_tokens in (3, LONG):
            with mode():
                ids, engine = served(model, max_new_tokens=new_tokens)
            assert engine == "graph"
            assert torch.equal(ids, expected[:, : 3 + new_tokens])


def test_captures_in_inference_mode_serve_a_batch_outside_it(as_on_a_gpu):
    model = tiny_model()
    with torch.inference_mode():
        served(model, prompts(3), max_new_tokens=LONG)
    expected = with_modules(model)
    assert torch.equal(served(model)[0], expected)


class Adapter(torch.nn.Module):
    """What a trainer puts around a projection."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -0.5 * self.inner(x)


def adapt(model):
    mlp = model.model.text_model.layers[0].mlp
    mlp.up_proj = Adapter(mlp.up_proj)


def negated(module, args, output):
    return (-output[0], *output[1:]) if isinstance(output, tuple) else -output


def own_forward(model):
    norm = model.model.text_model.norm
    inner = type(norm).forward
    norm.forward = lambda x, residual=None: -inner(norm, x, residual)


CHANGES = {
    "is a Adapter": adapt,
    "mlp' has forward hooks": lambda model: model.model.text_model.layers[0].mlp.register_forward_hook(negated),
    "layers.0' has forward hooks": lambda model: model.model.text_model.layers[0].register_forward_hook(negated),
    "q_proj' has forward hooks": lambda model: model.model.text_model.layers[0].self_attn.q_proj.register_forward_hook(negated),
    "text_model.norm' has a forward of its own": own_forward,
    "in training mode": lambda model: model.train(),
    "not in torch.float64": lambda model: model.double(),
}  # fmt: skip


@pytest.mark.parametrize("why", CHANGES)
def test_a_model_that_is_not_what_its_classes_say(as_on_a_gpu, caplog, why):
    """Changed after a first call: the modules decode, and the log says why."""
    model = tiny_model()
    unchanged, engine = served(model, max_new_tokens=2)
    assert engine == "graph"
    CHANGES[why](model)
    expected = with_modules(model)
    ids, engine = served(model)
    assert engine == "torch"
    assert torch.equal(ids, expected)
    assert why in caplog.text
    if "forward" in why or "Adapter" in why:
        assert not torch.equal(expected[:, :5], unchanged), "the change shows in no token"


def test_a_hook_that_is_taken_off_again(as_on_a_gpu):
    model = tiny_model()
    hook = model.model.text_model.layers[0].register_forward_hook(negated)
    assert served(model)[1] == "torch"
    hook.remove()
    assert served(model)[1] == "graph"


def test_autocast_and_hooks_for_all_modules(as_on_a_gpu, caplog):
    model = tiny_model()
    with torch.autocast("cpu"):
        assert served(model)[1] == "torch"
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert served(model)[1] == "torch"
    finally:
        hook.remove()
    assert "autocast" in caplog.text
    assert "for all modules" in caplog.text


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved])
def test_a_model_is_copied_after_its_first_call(as_on_a_gpu, copied):
    model = tiny_model()
    served(model)
    twin = copied(model)
    with torch.no_grad():
        twin.model.text_model.layers[0].mlp.up_proj.weight.mul_(-1.5)
    assert torch.equal(served(twin)[0], with_modules(twin))
    assert torch.equal(served(model)[0], with_modules(model))
    assert not torch.equal(with_modules(twin), with_modules(model))


def test_a_shallow_copy_does_not_take_the_graph_of_the_model(as_on_a_gpu):
    model = tiny_model()
    served(model)
    twin = copy.copy(model)
    twin.lm_head = torch.nn.Linear(32, 61, bias=False)
    twin._modules = {**model._modules, "lm_head": twin.lm_head}
    for each in (twin, model):
        assert torch.equal(served(each)[0], with_modules(each))


def test_the_graph_goes_with_its_model(as_on_a_gpu):
    model = tiny_model()
    served(model)
    graph, memory = weakref.ref(model._decode_graph._graph), weakref.ref(model._decode_graph._graph._arena)
    gc.collect()
    gc.disable()
    try:
        as_on_a_gpu.clear()
        del model
        assert graph() is None
        assert memory() is None
    finally:
        gc.enable()


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 6.30 GiB")


@pytest.mark.parametrize("where", ["buffers", "arena", "growth", "rotary"])
def test_memory_that_runs_out(as_on_a_gpu, monkeypatch, caplog, where):
    """At the start or in mid-generation: the answer stays that of the modules, which need less, and the log says why."""
    model = tiny_model()
    expected = with_modules(model, max_new_tokens=LONG)
    if where == "buffers":
        monkeypatch.setattr(DecodeGraph, "_make_buffers", out_of_memory)
    elif where == "rotary":
        monkeypatch.setattr(DecodeGraph, "_extend_rotary", out_of_memory)
    else:
        make, made = Arena.__init__, []

        def allot(self, *arguments):
            made.append(1)
            if where == "arena" or len(made) > 1:
                out_of_memory()
            make(self, *arguments)

        monkeypatch.setattr(Arena, "__init__", allot)
    ids, engine = served(model, max_new_tokens=LONG)
    assert engine == "torch"
    assert torch.equal(ids, expected)
    assert "out of memory" in caplog.text
    monkeypatch.undo()


def test_memory_that_runs_out_when_rows_are_chosen(as_on_a_gpu, monkeypatch, caplog):
    model = tiny_model()
    free = model.generate(**prompts(3), **GREEDY)
    arguments = {"eos_token_id": [int(free[2, 4])], "pad_token_id": 0}
    with monkeypatch.context() as patch:
        patch.setattr(graph_engine, "_captures", lambda device: False)
        expected = model.generate(**prompts(3), **GREEDY, **arguments)
    monkeypatch.setattr(DecodeGraph, "_select", out_of_memory)
    assert torch.equal(model.generate(**prompts(3), **GREEDY, **arguments), expected)
    assert "out of memory" in caplog.text


def test_the_next_call_waits_for_what_the_last_one_left_running(as_on_a_gpu, monkeypatch):
    """Its blocks run ahead of the tokens that are read; a thread with another stream may be next."""
    events = []
    monkeypatch.setattr(
        decode_graph, "mark", lambda device: events.append("mark") or (lambda: events.append("wait")), raising=True
    )
    model = tiny_model()
    served(model)
    assert events == ["mark"]
    served(model)
    assert events == ["mark", "wait", "mark"]


def test_warm_up_captures_what_calls_replay(as_on_a_gpu):
    model = tiny_model()
    assert model.warm_up([1, 2], tokens=16) == ""
    (capture,) = as_on_a_gpu
    assert capture.captures == 4
    expected = with_modules(model)
    for rows in (1, 2):
        ids, engine = served(model, prompts(rows))
        assert engine == "graph"
        assert torch.equal(ids[:1], expected)
    assert capture.captures == 4
    model.train()
    assert "training mode" in model.warm_up()
    with pytest.raises(ValueError, match="at most 16 rows, got 17"):
        model.eval().warm_up(17, tokens=8)
    with pytest.raises(ValueError, match="at least 1"):
        model.warm_up(0)


def test_warm_up_on_a_cpu_says_that_there_is_nothing_to_capture():
    assert "'cpu'" in tiny_model().warm_up(2)


class FakeCuda:
    """Notes what a capture asks of torch.cuda, and whether two captures are ever under way together."""

    def __init__(self, monkeypatch):
        self.graphs, self.busy, self.overlaps, self.streams = [], 0, 0, []
        for name in ("device", "stream"):
            monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
        for name, value in {
            "Stream": self.new_stream, "current_stream": lambda *_: self, "CUDAGraph": lambda: self,
            "graph": self.graph,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)
        self.replay, self.wait_stream = object(), lambda _: None

    def new_stream(self):
        stream = type("Stream", (), {"wait_stream": lambda *_: None})()
        self.streams.append(stream)
        return stream

    @contextlib.contextmanager
    def graph(self, graph, **arguments):
        self.graphs.append(arguments)
        self.busy += 1
        self.overlaps += self.busy > 1
        yield
        self.busy -= 1


def test_captures_take_turns_and_look_at_their_own_thread_alone(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    meet = threading.Event()

    def run():
        meet.wait(0.05)  # long enough for the other thread to come in between

    threads = [
        threading.Thread(target=capturing.CudaCapture(torch.device("cuda", n)), args=(run,), daemon=True)
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert cuda.overlaps == 0
    assert [g["capture_error_mode"] for g in cuda.graphs] == ["thread_local"] * 2
    assert [g["stream"] for g in cuda.graphs] == cuda.streams
    assert not any("pool" in g for g in cuda.graphs)


@pytest.mark.parametrize("error", ["ValueError", "OutOfResources"])
def test_what_a_launch_may_raise_is_a_failed_capture(as_on_a_gpu, monkeypatch, caplog, error):
    from triton.runtime.errors import OutOfResources

    def launch(self, cache):
        raise ValueError("Pointer argument (at 0)") if error == "ValueError" else OutOfResources(1, 0, "shared memory")

    model = tiny_model()
    expected = with_modules(model)
    monkeypatch.setattr(DecodeGraph, "_launch", launch)
    with caplog.at_level(logging.WARNING):
        ids, engine = served(model)
    assert (engine, torch.equal(ids, expected)) == ("torch", True)
    assert "cannot be captured" in caplog.text
