"""Rotary embedding of queries and keys."""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm.kernels import rotary
from faster_smolvlm.modeling import reference

from tests.helpers.kernel_checks import assert_close


def angles(length, dim, dtype, batch=1):
    inverse = 1.0 / (100000.0 ** (torch.arange(0, dim, 2).float() / dim))
    a = torch.arange(batch * length).float().view(batch, length, 1) * inverse
    a = torch.cat((a, a), -1)
    return a.cos().to(dtype), a.sin().to(dtype)


def check(guard, module, dtype, batch, length, heads, kv_heads, dim, shared=True):
    fused = guard.put(torch.randn(batch, length, heads + kv_heads, dim).to(dtype))
    q, k = fused[:, :, :heads], fused[:, :, heads:]
    cos, sin = (guard.put(t) for t in angles(length, dim, dtype, 1 if shared else batch))
    for x, y in zip((q, k), module.rotary(q, k, cos, sin), strict=True):
        expected = reference.rotate(x.transpose(1, 2), cos[:, None], sin[:, None]).transpose(1, 2)
        if dtype == torch.float32:
            assert_close(y, expected)
        else:
            assert torch.equal(y, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "length", "heads", "kv_heads", "dim"), [(1, 1, 9, 3, 64), (2, 7, 3, 1, 32), (1, 5, 2, 2, 72)]
)
def test_rotary(guard, dtype, batch, length, heads, kv_heads, dim):
    check(guard, rotary, dtype, batch, length, heads, kv_heads, dim)


def test_rotary_with_positions_per_row(guard):
    check(guard, rotary, torch.bfloat16, 3, 5, 3, 1, 64, shared=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "rounded_product(x1, cos) - rounded_product(x2, sin)",
            "rounded_product(x1, cos) + rounded_product(x2, sin)",
            "relative error",
        ),
        (
            "inside = (heads < HEADS_K) & (d < HALF)",
            "inside = (heads <= HEADS_K) & (d < HALF)",
            "a kernel wrote|relative error",
        ),
        ("s = token % length", "s = (token + 1) % length", "relative error"),
    ],
)
def test_planted_faults_are_caught(guard, mutant, caught, old, new, message):
    broken = mutant("rotary", old, new)
    with caught(message):
        check(guard, broken, torch.float32, 1, 5, 9, 3, 64)
