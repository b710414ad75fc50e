"""Every kernel on a real GPU against float64, at the sizes of the family; skipped where there is none."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA or ROCm device", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter is on: run `make test-gpu`", allow_module_level=True)

from faster_smolvlm.kernels import (
    attention,
    decode_attention,
    down_decode,
    layer_norm,
    lm_head_argmax,
    mlp_decode,
    out_decode,
    pixel_shuffle_project,
    qkv_decode,
    rms_norm,
    rotary,
)
from faster_smolvlm.modeling import reference

# Largest error over the norm of the result, against float64 on the same inputs: a rounding of the result, and those
# in between that Transformers makes as well.
LIMIT = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
DTYPES = list(LIMIT)
SIZES = [(576, 1536, 9, 3), (960, 2560, 15, 5), (2048, 8192, 32, 32)]


def check(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Hold all values together to the limit, and each row to four times as much: a race spoils a row, not the whole."""
    assert not actual.isnan().any()
    difference, rows = actual.double() - expected, expected.norm(dim=-1)
    error = (difference.norm() / expected.norm()).item()
    assert error <= LIMIT[actual.dtype], f"relative error {error:.1e}"
    worst = (difference.norm(dim=-1) / rows.clamp_min(0.1 * rows.mean())).max().item()
    assert worst <= 4 * LIMIT[actual.dtype], f"relative error of a row {worst:.1e}"


def random(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(shape, device="cuda") * scale).to(dtype)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [576, 768, 960, 1152, 2048])
def test_norms(dtype, width):
    x, r, w, b = (random(*s, dtype=dtype) for s in ((300, width), (300, width), (width,), (width,)))
    y, h = rms_norm.rms_norm(x, r, w, 1e-5)
    assert torch.equal(h, x + r)
    d = h.double()
    check(y, d * torch.rsqrt(d.pow(2).mean(-1, keepdim=True) + 1e-5) * w.double())
    check(
        layer_norm.layer_norm(x, None, w, b, 1e-6)[0], F.layer_norm(x.double(), (width,), w.double(), b.double(), 1e-6)
    )
    x_, w_ = x.double().requires_grad_(), w.double().requires_grad_()
    (x_ * torch.rsqrt(x_.pow(2).mean(-1, keepdim=True) + 1e-5) * w_ * r.double()).sum().backward()
    dx, dw = rms_norm.rms_norm_backward(r, x, w, 1e-5)
    check(dx, x_.grad)
    check(dw, w_.grad)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary(dtype):
    q, k = random(2, 77, 9, 64, dtype=dtype), random(2, 77, 3, 64, dtype=dtype)
    angle = torch.rand(1, 77, 32, device="cuda").repeat(1, 1, 2) * 6
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    for x, y in zip((q, k), rotary.rotary(q, k, cos, sin), strict=True):
        check(y, reference.rotate(x.double(), cos.double()[:, :, None], sin.double()[:, :, None]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "length", "heads", "kv_heads", "dim", "causal", "masked"),
    [
        (3, 1024, 12, 12, 64, False, False),
        (3, 1024, 12, 12, 64, False, True),
        (2, 729, 16, 16, 72, False, False),
        (2, 729, 16, 16, 72, False, True),
        (2, 1100, 9, 3, 64, True, False),
        (2, 1101, 15, 5, 64, True, True),
        (1, 97, 4, 2, 32, True, False),
    ],
)
def test_attention(dtype, batch, length, heads, kv_heads, dim, causal, masked):
    q, k, v = (random(batch, length, h, dim, dtype=dtype) for h in (heads, kv_heads, kv_heads))
    keep = None
    if masked:
        keep = torch.ones(batch, length, dtype=torch.bool, device="cuda")
        keep[0, : length // 3] = False
    out = attention.attention(q, k, v, keep, dim**-0.5, causal)
    q_, k_, v_ = (x.transpose(1, 2).double() for x in (q, k, v))
    mask = None if keep is None else keep[:, None, None]
    expected = reference.attention(q_, k_, v_, mask, scale=dim**-0.5, causal=causal)[0].transpose(1, 2)
    seen = slice(length // 3, None) if masked and causal else slice(None)
    check(out[:, seen], expected[:, seen])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("hidden", "side", "dim", "scale"), [(576, 32, 768, 4), (2048, 27, 1152, 3)])
def test_pixel_shuffle_project(dtype, hidden, side, dim, scale):
    x = random(2, side * side, dim, dtype=dtype)
    w = random(hidden, dim * scale**2, dtype=dtype, scale=(dim * scale**2) ** -0.5)
    check(
        pixel_shuffle_project.pixel_shuffle_project(x, w, scale),
        reference.pixel_shuffle_project(x.double(), w.double(), scale),
    )


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("hidden", "inner", "heads", "kv_heads"), SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_decode_kernels(dtype, hidden, inner, heads, kv_heads, batch, int8):
    def matrix(n: int, k: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        if not int8:
            w = random(n, k, dtype=dtype, scale=k**-0.5)
            return w, None, w.double()
        w = torch.randint(-127, 128, (n, k), dtype=torch.int8, device="cuda")
        s = torch.rand(n, device="cuda") / 64 / k**0.5
        return w, s, w.double() * s.double()[:, None]

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        d = x.double()
        return d * torch.rsqrt(d.pow(2).mean(-1, keepdim=True) + 1e-5) * weight.double()

    dim, capacity, length = 64, 2048, 1100
    x, g = random(batch, hidden, dtype=dtype), torch.rand(hidden, device="cuda").add(0.5).to(dtype)
    (wq, sq, dq), (wk, sk, dk), (wv, sv, dv) = (matrix(h * dim, hidden) for h in (heads, kv_heads, kv_heads))
    angle = torch.rand(capacity, dim // 2, device="cuda").repeat(1, 2) * 6
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    keys, values = (random(batch, kv_heads, capacity, dim, dtype=dtype) for _ in range(2))
    first = torch.arange(batch, device="cuda", dtype=torch.int32)
    position = torch.full((batch,), length, device="cuda", dtype=torch.int32)
    q = torch.empty(batch, heads, dim, device="cuda", dtype=dtype)
    scales = (sq, sk, sv) if int8 else None
    qkv_decode.qkv_decode(x, g, (wq, wk, wv), scales, cos, sin, first, position, keys, values, q, 1e-5)
    n, at = norm(x, g), (position - first).long()
    c, s = cos.double()[at][:, None], sin.double()[at][:, None]
    check(q, reference.rotate((n @ dq.t()).view(batch, heads, dim), c, s))
    check(keys[:, :, length], reference.rotate((n @ dk.t()).view(batch, kv_heads, dim), c, s))
    check(values[:, :, length], (n @ dv.t()).view(batch, kv_heads, dim))

    splits = decode_attention.split_count(kv_heads, x.device)
    partial_o, partial_l = (
        torch.empty(batch, heads, splits, dim, device="cuda"),
        torch.empty(batch, heads, splits, device="cuda"),
    )
    decode_attention.decode_attention(q, keys, values, first, position, partial_o, partial_l, 0.125)
    o = reference.decode_attention(q.double(), keys.double(), values.double(), first, position, 0.125).flatten(1)
    wo, so, do = matrix(hidden, heads * dim)
    y = torch.empty_like(x)
    out_decode.out_decode(partial_o, partial_l, wo, so, x, y)
    check(y, x.double() + o @ do.t())

    (wg, sg, dg), (wu, su, du) = matrix(inner, hidden), matrix(inner, hidden)
    middle = torch.empty(batch, inner, device="cuda", dtype=dtype)
    mlp_decode.mlp_decode(x, g, wg, wu, (sg, su) if int8 else None, middle, 1e-5)
    check(middle, F.silu(n @ dg.t()) * (n @ du.t()))
    wd, sd, dd = matrix(hidden, inner)
    down_decode.down_decode(middle, wd, sd, x, y)
    check(y, x.double() + middle.double() @ dd.t())

    head, scale, dhead = matrix(4928, hidden)
    blocks = lm_head_argmax.head_blocks(head)
    logits = torch.empty(batch, 4928, device="cuda", dtype=dtype)
    best, index = (
        torch.empty(batch, blocks, device="cuda"),
        torch.empty(batch, blocks, device="cuda", dtype=torch.int32),
    )
    lm_head_argmax.lm_head_argmax(x, g, head, scale, logits, best, index, 1e-5)
    check(logits, n @ dhead.t())
    token, step = (
        torch.empty(batch, device="cuda", dtype=torch.int64),
        torch.zeros(batch, device="cuda", dtype=torch.int32),
    )
    tokens, embedding = torch.zeros(batch, 4, device="cuda", dtype=torch.int64), random(4928, hidden, dtype=dtype)
    lm_head_argmax.advance(best, index, embedding, token, y, tokens, position, step)
    assert torch.equal(token, (logits == logits.amax(-1, keepdim=True)).int().argmax(-1))
    assert torch.equal(y, embedding[token])
