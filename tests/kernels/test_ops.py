"""The operators as torch sees them, and the choice between implementations."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from faster_smolvlm.modeling import ops, reference, triton_ops

from tests.helpers.kernel_checks import assert_close

KEEP = torch.tensor([[False, True, True, True, True], [True, True, True, True, True]])


def leaves(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def cos_sin(length: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.arange(length * dim // 2).view(1, length, dim // 2).repeat(1, 1, 2) * 0.1
    return angle.cos(), angle.sin()


SAMPLES = {
    "rms_norm": lambda: (*leaves((3, 32), (32,)), 1e-5),
    "rms_norm_backward": lambda: (*(x.detach() for x in leaves((3, 32), (3, 32), (32,))), 1e-5),
    "add_rms_norm": lambda: (*leaves((3, 32), (3, 32), (32,)), 1e-5),
    "add_layer_norm": lambda: (*leaves((3, 32), (3, 32), (32,), (32,)), 1e-6),
    "rotary": lambda: (*leaves((1, 5, 4, 16), (1, 5, 2, 16)), *cos_sin(5, 16)),
    "attention": lambda: (*leaves((2, 5, 4, 16), (2, 5, 2, 16), (2, 5, 2, 16)), KEEP, 0.25, True),
    "pixel_shuffle_project": lambda: (*leaves((2, 16, 16), (8, 64)), 2),
}


def rms_norm_gradients(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float) -> list[torch.Tensor]:
    """What autograd makes of the reference."""
    leaf_x, leaf_weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    return list(torch.autograd.grad(reference.rms_norm(leaf_x, leaf_weight, eps), (leaf_x, leaf_weight), grad))


FORMULAS = {
    "rms_norm": reference.rms_norm,
    "rms_norm_backward": rms_norm_gradients,
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


def test_every_operator_has_a_sample():
    registered = {
        str(name).split("::")[1] for name in torch._C._dispatch_get_all_op_names() if "faster_smolvlm::" in name
    }
    assert registered == set(SAMPLES)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "rms_norm_backward"])
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
    for a, b in paired(got, expected):
        assert_close(a, b)


def paired(got, expected):
    return list(zip(got, expected, strict=True)) if isinstance(got, tuple) else [(got, expected)]


def scattered(x: torch.Tensor) -> torch.Tensor:
    """The same values with no two side by side, and the first of them 4 bytes past a 16-byte border."""
    buffer = (
        torch.full((*x.shape[:-1], x.shape[-1], 2), float("nan"))
        if x.is_floating_point()
        else x[..., None].repeat(*[1] * x.ndim, 2)
    )
    buffer[..., 1] = x
    return buffer[..., 1]


@pytest.mark.parametrize("name", SAMPLES)
def test_scattered_and_misaligned_tensors(name):
    arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in SAMPLES[name]()]
    apart = [scattered(a) if isinstance(a, torch.Tensor) else a for a in arguments]
    assert any(not a.is_contiguous() and a.data_ptr() % 16 for a in apart if isinstance(a, torch.Tensor))
    operator = getattr(triton_ops, name)
    for a, b in paired(operator(*apart), operator(*arguments)):
        assert torch.equal(a, b)


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


def test_compile_of_a_layer_with_its_gradients(formulas):
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


def test_plain_torch_can_be_forced(monkeypatch):
    monkeypatch.setattr(ops, "_usable", {torch.device("cuda"): ""})
    assert ops.why_not_triton(torch.device("cuda"), torch.bfloat16) == ""
    with ops.use("torch"):
        assert "ops.use('torch')" in ops.why_not_triton(torch.device("cuda"), torch.bfloat16)


def test_what_does_not_fit_a_kernel_is_left_to_torch_and_its_errors():
    x, w = torch.randn(2, 32), torch.ones(32)
    with ops.use("triton"):
        for call in (
            lambda: ops.rms_norm(x, w[:31], 1e-5),
            lambda: ops.layer_norm(x, w, w[:31], 1e-5),
            lambda: ops.add_layer_norm(x, x[:, :31], w, w, 1e-5),
            lambda: ops.pixel_shuffle_project(
                x[None].view(1, 4, 16), torch.nn.Identity(), torch.nn.Linear(60, 3, bias=False), 3
            ),
        ):
            with pytest.raises(RuntimeError):
                call()


def test_projections_of_one_input_share_a_buffer(monkeypatch):
    x, modules = torch.randn(2, 5, 32), [torch.nn.Linear(32, n) for n in (32, 16, 16)]
    expected = [m(x) for m in modules]
    with ops.use("triton"):
        assert all(y.requires_grad for y in ops.project_together(x, *modules))
        with torch.no_grad():
            together = ops.project_together(x, *modules)
            assert len({y.untyped_storage().data_ptr() for y in together}) == 1
            modules[1].weight.data.mul_(2.0)  # what peft and EMA do: no version tells of it
            changed = ops.project_together(x, *modules)
            modules[2].register_forward_hook(lambda *_: None)
            apart = ops.project_together(x, *modules)
    for a, b in zip(together, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.allclose(changed[1], modules[1](x), atol=1e-6)
    assert len({y.untyped_storage().data_ptr() for y in apart}) == 3


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
        ([*heads()[:2], heads(dtype=torch.float16)[2]], {}, "value torch.float16"),
        ([*heads()[:2], heads()[2].to("meta")], {}, "on meta"),
    ],
)
def test_what_the_attention_kernel_cannot_do(qkv, arguments, message):
    arguments = {"scale": 0.25, **arguments}
    with pytest.raises(ValueError, match=message):
        ops.attention(*qkv, implementation="triton", **arguments)
    if arguments["scale"] > 0 and not arguments.get("dropout") and len({(x.dtype, x.device) for x in qkv}) == 1:
        with ops.use("triton"):
            automatic = ops.attention(*qkv, implementation="auto", **arguments)
        assert torch.equal(automatic, ops.attention(*qkv, implementation="sdpa", **arguments))


@pytest.mark.parametrize("shapes", [((4, 5), (2, 5), (2, 6)), ((4, 5), (3, 5), (3, 5))])
def test_shapes_that_are_no_attention(shapes):
    qkv = [torch.randn(1, h, length, 16) for h, length in shapes]
    with pytest.raises(ValueError, match="H a multiple of G"):
        ops.attention(*qkv, scale=0.25, implementation="triton")
    with pytest.raises(ValueError, match="bool mask"):
        ops.attention(*heads(), torch.ones(3, 1, 1, 5, dtype=torch.bool), scale=0.25, implementation="triton")


@pytest.mark.parametrize(
    ("device", "capability", "message"),
    [
        ("cuda", (7, 5), "no Triton settings for compute capability 7.5; expected 8.0 or newer"),
        ("cuda", (8, 9), ""),
        ("cuda", (12, 0), ""),
        ("mps", None, "need a CUDA or ROCm device, not 'mps'"),
    ],
)
def test_devices(monkeypatch, device, capability, message):
    monkeypatch.setattr(ops, "_usable", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert message in ops.why_not_triton(torch.device(device), torch.bfloat16)
    assert bool(message) == bool(ops.why_not_triton(torch.device(device), torch.bfloat16))


WITHOUT_DRIVER = """
import torch
from faster_smolvlm.kernels.launch import UnsupportedArchitectureError
from faster_smolvlm.kernels.rms_norm import rms_norm
from faster_smolvlm.modeling import ops
x, w = torch.randn(2, 32), torch.ones(32)
try:
    rms_norm(x, None, w, 1e-5)
except UnsupportedArchitectureError as error:
    print(error)
print(ops.why_not_triton(x.device, x.dtype))
with ops.use("triton"):
    print(torch.allclose(ops.rms_norm(x, w, 1e-5), ops.reference.rms_norm(x, w, 1e-5)))
"""


def test_triton_without_a_driver():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_DRIVER], capture_output=True, text=True, env=environment, check=True
    )
    kernel, choice, formula = run.stdout.splitlines()
    assert "need a CUDA or ROCm device, not 'cpu'" in kernel
    assert choice == kernel
    assert formula == "True"


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
