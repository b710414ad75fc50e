"""On which device a kernel is launched, through what, and in which order the host waits for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from faster_smolvlm.kernels.launch import Settings, launch
from faster_smolvlm.modeling import ops, triton_ops
from faster_smolvlm.modeling.engines.graph import to_host
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.helpers.graph_models import prompts, tiny_model


class Devices:
    """A machine of two GPUs, as far as torch.cuda tells which one is current."""

    def __init__(self, monkeypatch):
        self.current = 0
        monkeypatch.setattr(torch.cuda, "current_device", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "device", self.switch)

    def switch(self, device):
        devices = self

        class Switch:
            def __enter__(self):
                self.before, devices.current = devices.current, device.index

            def __exit__(self, *_):
                devices.current = self.before

        return Switch()


def on_gpu(index):
    with FakeTensorMode():
        return torch.empty(4, device=torch.device("cuda", index))


@pytest.mark.parametrize("index", [0, 1])
def test_a_kernel_runs_where_its_tensors_are(monkeypatch, index):
    """Triton launches on the current device and refuses the pointers of another one."""
    devices, launched = Devices(monkeypatch), []

    class Kernel:
        arg_names = ("x", "n")

        def __getitem__(self, grid):
            return lambda *args, **options: launched.append((devices.current, options["enable_fp_fusion"]))

    launch(Kernel(), (1,), Settings(4), on_gpu(index), 4)
    launch(Kernel(), (1,), Settings(4, fp_fusion=False), 4, on_gpu(index))
    assert launched == [(index, True), (index, False)]
    assert devices.current == 0


def test_the_host_waits_on_the_stream_that_copies(monkeypatch):
    recorded = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    monkeypatch.setattr(
        torch.cuda, "Event", lambda: SimpleNamespace(record=lambda stream=None: recorded.append(stream))
    )
    monkeypatch.setattr(torch, "empty", lambda *_, **__: SimpleNamespace(copy_=lambda *_, **__: None))
    to_host(SimpleNamespace(device=torch.device("cuda", 1), shape=(1, 8), dtype=torch.int64))
    assert recorded == ["stream of cuda:1"]


def operators_called(run):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return {event.key for event in profile.key_averages() if event.key.startswith("faster_smolvlm::")}


def test_kernels_are_called_directly_where_nothing_looks_at_operators():
    x, weight = torch.randn(2, 32), torch.ones(32)
    norm = lambda: ops.rms_norm(x, weight, 1e-5)  # noqa: E731
    with ops.use("triton"):
        assert operators_called(norm) == {"faster_smolvlm::rms_norm"}, "gradients may be recorded"
        with torch.no_grad():
            assert operators_called(norm) == set()
            direct = norm()
            traced = torch.jit.trace(lambda x: ops.rms_norm(x, weight, 1e-5), x, check_trace=False)
            assert "faster_smolvlm::rms_norm" in str(traced.graph)
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                fake = ops.rms_norm(mode.from_tensor(x), mode.from_tensor(weight), 1e-5)
        assert fake.shape == x.shape
        assert torch.equal(norm(), direct)


def test_automatic_attention_leaves_training_to_torch(monkeypatch):
    """The backward of the kernel makes several (B, H, S, L) matrices in float32."""
    calls = []
    attention = triton_ops.attention
    monkeypatch.setattr(triton_ops, "attention", lambda *arguments: calls.append(1) or attention(*arguments))
    q, k, v = (torch.randn(1, 2, 5, 16) for _ in range(3))
    with ops.use("triton"):
        for recording in (q, k, v):
            recording.requires_grad_()
            ops.attention(q, k, v, scale=0.25, causal=True).sum().backward()
            assert not calls
            recording.requires_grad_(False)
        ops.attention(q.requires_grad_(), k, v, scale=0.25, causal=True, implementation="triton").sum().backward()
        assert len(calls) == 1
        with torch.no_grad():
            ops.attention(q, k, v, scale=0.25, causal=True)
    assert len(calls) == 2


@torch.no_grad()
def test_prompts_padded_on_the_left_are_causal_with_a_mask_of_keys(monkeypatch):
    seen = []
    attention = triton_ops.attention

    def spy(q, k, v, keep, scale, causal):
        seen.append((None if keep is None else tuple(keep.shape), causal))
        return attention(q, k, v, keep, scale, causal)

    model, inputs = tiny_model(), prompts(3)
    real = inputs["attention_mask"].bool()
    expected = model(**inputs).logits
    monkeypatch.setattr(triton_ops, "attention", spy)
    with ops.use("triton"):
        got = model(**inputs).logits
    assert seen == [((3, 6), True)] * 2
    assert torch.allclose(got[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["auto", "sdpa", "triton", "eager"])
def test_causal_attention_with_a_mask_of_keys(implementation):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 5, 16) for heads in (4, 2, 2))
    keep = torch.tensor([[False, False, True, True, True], [True] * 5])[:, None, None]
    full = torch.ones(5, 5, dtype=torch.bool).tril() & keep
    expected = ops.reference.attention(q, k, v, full, scale=0.25)[0]
    if implementation == "eager":
        got = ops.reference.attention(q, k, v, keep, scale=0.25, causal=True)[0]
    else:
        got = ops.attention(q, k, v, keep, scale=0.25, causal=True, implementation=implementation)
    assert torch.allclose(got[:, :, 2:], expected[:, :, 2:], atol=1e-5)
