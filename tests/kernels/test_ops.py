"""The operators as torch sees them, and the choice between implementations."""

from __future__ import annotations

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from faster_smolvlm import ops, reference, triton_ops
from kernel_checks import assert_close

KEEP = torch.tensor([[False, True, True, True, True], [True, True, True, True, True]])


def leaves(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def cos_sin(length: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.arange(length * dim // 2).view(1, length, dim // 2).repeat(1, 1, 2) * 0.1
    return angle.cos(), angle.sin()


SAMPLES = {
    "rms_norm": lambda: (*leaves((3, 32), (32,)), 1e-5),
    "add_rms_norm": lambda: (*leaves((3, 32), (3, 32), (32,)), 1e-5),
    "add_layer_norm": lambda: (*leaves((3, 32), (3, 32), (32,), (32,)), 1e-6),
    "rotary": lambda: (*leaves((1, 5, 4, 16), (1, 5, 2, 16)), *cos_sin(5, 16)),
    "attention": lambda: (*leaves((2, 5, 4, 16), (2, 5, 2, 16), (2, 5, 2, 16)), KEEP, 0.25, True),
    "pixel_shuffle_project": lambda: (*leaves((2, 16, 16), (8, 64)), 2),
}
FORMULAS = {
    "rms_norm": reference.rms_norm,
    "add_rms_norm": reference.add_rms_norm,
    "add_layer_norm": reference.add_layer_norm,
    "rotary": lambda q, k, c, s: (reference.rotate(q, c[:, :, None], s[:, :, None]), reference.rotate(k, c[:, :, None], s[:, :, None])),
    "attention": lambda q, k, v, keep, scale, causal: triton_ops._attention_formula(q, k, v, keep, scale, causal)[0],
    "pixel_shuffle_project": reference.pixel_shuffle_project,
}  # fmt: skip


@pytest.fixture
def formulas(monkeypatch):
    """A CPU without the interpreter: the operators run their formulas."""
    monkeypatch.delenv("TRITON_INTERPRET")


@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(formulas, name):
    torch.library.opcheck(getattr(triton_ops, name), SAMPLES[name]())


@pytest.mark.parametrize("name", SAMPLES)
def test_gradients_are_those_of_the_reference(formulas, name):
    results = []
    for function in (getattr(triton_ops, name), FORMULAS[name]):
        arguments = SAMPLES[name]()
        out = function(*arguments)
        out = out if isinstance(out, tuple) else (out,)
        torch.manual_seed(1)
        sum((o * torch.randn(o.shape)).sum() for o in out).backward()
        results.append((out, [a.grad for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]))
    (got, got_grads), (expected, expected_grads) = results
    for a, b in zip((*got, *got_grads), (*expected, *expected_grads), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_kernels_behind_the_operators(name):
    arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in SAMPLES[name]()]
    got, expected = getattr(triton_ops, name)(*arguments), FORMULAS[name](*arguments)
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    for a, b in pairs:
        assert_close(a, b)


def test_training_through_the_kernels():
    (x, weight) = leaves((6, 32), (32,))
    triton_ops.rms_norm(x, weight, 1e-5).square().sum().backward()
    x_, w_ = (t.detach().double().requires_grad_() for t in (x, weight))
    normed = x_ * torch.rsqrt(x_.pow(2).mean(-1, keepdim=True) + 1e-5)
    (w_ * normed).square().sum().backward()
    assert_close(x.grad, x_.grad.float())
    assert_close(weight.grad, w_.grad.float())


def block(x, norm, bias, qkv, cos, sin):
    """A layer that uses every step: what a forward pass of the model does with them."""
    y, h = ops.add_rms_norm(x, x, norm, 1e-5)
    q, k, v = F.linear(y, qkv).view(2, 5, 3, 2, 16).transpose(1, 3).unbind(2)
    q, k = ops.rotary(q, k, cos[:, None], sin[:, None])
    out = ops.attention(q, k, v, None, scale=0.25, causal=True).transpose(1, 2).reshape(2, 5, 32)
    return ops.layer_norm(ops.rms_norm(h + out, norm, 1e-5), norm, bias, 1e-6)


def block_inputs():
    return (*leaves((2, 5, 32), (32,), (32,), (96, 32)), *cos_sin(5, 16))


def test_compile_without_graph_breaks(formulas):
    with ops.use("triton"):
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        inputs = block_inputs()
        got = compiled(*inputs)
        got.sum().backward()
        grads = [t.grad.clone() for t in inputs[:4]]
    plain = block_inputs()
    with ops.use("torch"):
        expected = block(*plain)
    expected.sum().backward()
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(grads, (t.grad for t in plain[:4]), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_export(formulas):
    class Block(torch.nn.Module):
        def forward(self, *inputs):
            return block(*inputs)

    inputs = tuple(t.detach() for t in block_inputs())
    with ops.use("triton"):
        program = torch.export.export(Block(), inputs)
    names = {str(node.target) for node in program.graph.nodes}
    assert {"faster_smolvlm.attention.default", "faster_smolvlm.rotary.default"} <= names
    with ops.use("torch"):
        assert torch.allclose(program.module()(*inputs), block(*inputs), rtol=1e-4, atol=1e-5)


def test_a_cpu_takes_plain_torch_unless_forced(monkeypatch):
    x, weight = torch.randn(2, 32), torch.ones(32)
    called = []
    monkeypatch.setattr(triton_ops, "rms_norm", lambda *_: called.append(1))
    ops.rms_norm(x, weight, 1e-5)
    assert not called
    with ops.use("triton"):
        ops.rms_norm(x, weight, 1e-5)
        ops.rms_norm(x.double(), weight.double(), 1e-5)  # no kernel computes in float64
    assert called == [1]
    with pytest.raises(ValueError, match="must be 'triton' or 'torch'"), ops.use("cuda"):
        pass


def heads(dim: int = 16, dtype: torch.dtype = torch.float32, length: int = 5) -> list[torch.Tensor]:
    return [torch.randn(1, h, length, dim, dtype=dtype) for h in (4, 2, 2)]


@pytest.mark.parametrize(
    ("qkv", "arguments", "message"),
    [
        (heads(dim=12), {}, "head_dim 12 is not supported"),
        (heads(dim=20), {}, "head_dim 20 is not supported"),
        (heads(dim=136), {}, "head_dim 136 is not supported"),
        (heads(dtype=torch.float64), {}, "not in torch.float64"),
        (heads(), {"dropout": 0.1}, "no dropout"),
        (heads(), {"scale": -1.0}, "must be positive"),
        (heads(), {"mask": torch.zeros(1, 1, 5, 5)}, "bool mask"),
        (heads(), {"mask": torch.ones(1, 4, 5, 5, dtype=torch.bool)}, "bool mask"),
    ],
)
def test_what_the_attention_kernel_cannot_do(qkv, arguments, message):
    arguments = {"scale": 0.25, **arguments}
    with pytest.raises(ValueError, match=message):
        ops.attention(*qkv, implementation="triton", **arguments)
    if arguments["scale"] > 0 and not arguments.get("dropout"):
        with ops.use("triton"):
            automatic = ops.attention(*qkv, implementation="auto", **arguments)
        assert torch.equal(automatic, ops.attention(*qkv, implementation="sdpa", **arguments))


def test_attention_without_a_gpu(formulas, monkeypatch):
    monkeypatch.setattr(ops, "_usable", {})
    with pytest.raises(ValueError, match="need a CUDA or ROCm device, not 'cpu'"):
        ops.attention(*heads(), scale=0.25, implementation="triton")
    q, k, v = heads()
    assert torch.equal(ops.attention(q, k, v, scale=0.25), ops.attention(q, k, v, scale=0.25, implementation="sdpa"))


@pytest.mark.parametrize(
    "mask", [None, torch.ones(1, 1, 1, 5, dtype=torch.bool), torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()]
)
def test_masks_of_attention(mask):
    q, k, v = heads()
    got = ops.attention(q, k, v, mask, scale=0.25, implementation="triton")
    assert_close(got, reference.attention(q, k, v, mask, scale=0.25)[0])


def test_flash_attention_takes_its_package(monkeypatch):
    seen = {}

    def flash_attn_func(q, k, v, *, dropout_p, softmax_scale, causal):
        seen.update(shape=tuple(q.shape), scale=softmax_scale, causal=causal)
        out = reference.attention(*(x.transpose(1, 2) for x in (q, k, v)), scale=softmax_scale, causal=causal)[0]
        return out.transpose(1, 2)

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_func=flash_attn_func))
    q, k, v = (x.bfloat16() for x in heads())
    ops.check_attention("flash_attention_2")
    got = ops.attention(q, k, v, scale=0.25, causal=True, implementation="flash_attention_2")
    assert seen == {"shape": (1, 5, 4, 16), "scale": 0.25, "causal": True}
    assert torch.equal(got, reference.attention(q, k, v, scale=0.25, causal=True)[0])


@pytest.mark.parametrize(("name", "package"), [("triton", "triton"), ("flash_attention_2", "flash_attn")])
def test_attention_whose_package_is_missing(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"needs the package {package}"):
        ops.check_attention(name)


def test_an_unknown_attention_is_named():
    with pytest.raises(ValueError, match=r"one of auto, triton, sdpa, eager, flash_attention_2; got 'xformers'"):
        ops.check_attention("xformers")


def test_a_missing_kernel_folder_or_triton_leaves_plain_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_smolvlm.kernels.launch", None)
    assert "triton cannot be imported" in ops._probe(torch.device("cuda"))
