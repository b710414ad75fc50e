"""Attention of many rows: every length at the borders of a block, both head sizes of the towers, every kind of mask."""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm.kernels import attention
from faster_smolvlm.kernels.launch import as_if
from faster_smolvlm.modeling import reference

from tests.helpers.kernel_checks import assert_close

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LENGTHS = [1, 2, 15, 16, 17, 31, 63, 64, 65, 100, 127, 129, 193, 257]


def expected_attention(q, k, v, keep, scale, causal):
    """The reference in float32 on the kernel's layout, rounded once."""
    mask = None
    if keep is not None:
        mask = keep.bool()[:, None, None] if keep.ndim == 2 else keep.bool()[:, None]
    q_, k_, v_ = (t.float().transpose(1, 2) for t in (q, k, v))
    return reference.attention(q_, k_, v_, mask, scale=scale, causal=causal)[0].transpose(1, 2).to(q.dtype)


def check(
    guard, module, dtype, batch=1, queries=65, keys=None, heads=2, kv_heads=None, dim=64, keep=None, causal=False
):
    keys, kv_heads = keys or queries, kv_heads or heads
    q = guard.put(torch.randn(batch, queries, heads, dim).to(dtype))
    k, v = (guard.put(torch.randn(batch, keys, kv_heads, dim).to(dtype)) for _ in range(2))
    keep = None if keep is None else guard.put(keep)
    out = module.attention(q, k, v, keep, dim**-0.5, causal)
    assert_close(out, expected_attention(q, k, v, keep, dim**-0.5, causal))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_bidirectional(guard, dtype, length):
    check(guard, attention, dtype, queries=length, heads=1)


@pytest.mark.parametrize("part", range(3))
def test_every_odd_length(guard, part):
    for i, length in enumerate(range(1, 258, 2)):
        if i % 3 == part:
            causal = i % 2 == 0
            check(guard, attention, DTYPES[(i // 3) % 3], queries=min(length, 33), keys=length, heads=1, causal=causal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [16, 32, 72, 80, 96, 128])
def test_head_dims(guard, dtype, dim):
    check(guard, attention, dtype, queries=65, heads=1, dim=dim)


@pytest.mark.parametrize("dim", [64, 72])
@pytest.mark.parametrize("dtype", DTYPES)
def test_from_the_fused_buffer_with_a_patch_mask(guard, dtype, dim):
    fused = guard.put(torch.randn(2, 81, 3, 2, dim).to(dtype))
    keep = torch.ones(2, 9, 9, dtype=torch.bool)
    keep[0, :, 6:] = False
    keep[1, 4:] = False
    q, k, v = fused.unbind(2)
    out = attention.attention(q, k, v, keep.view(2, 81), dim**-0.5, False)
    assert_close(out, expected_attention(q, k, v, keep.view(2, 81), dim**-0.5, False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (17, 17), (64, 64), (65, 65), (130, 130), (3, 70), (33, 129)])
def test_causal_with_grouped_heads(guard, dtype, queries, keys):
    check(guard, attention, dtype, queries=queries, keys=keys, heads=3, kv_heads=1, causal=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_causal_with_left_padding(guard, dtype):
    keep = torch.ones(2, 75, dtype=torch.bool)
    keep[0, :70] = False
    q, k, v = (torch.randn(2, 75, h, 64).to(dtype) for h in (6, 2, 2))
    out = attention.attention(q, k, v, keep, 0.125, True)
    expected = expected_attention(q, k, v, keep, 0.125, True)
    assert_close(out[0, 70:], expected[0, 70:])
    assert_close(out[1], expected[1])
    assert (out[0, :70] == 0).all()  # a padded query sees no key


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_mask_for_every_query(guard, dtype):
    keep = torch.rand(2, 70, 83) > 0.5
    keep[:, :, 0] = True
    check(guard, attention, dtype, batch=2, queries=70, keys=83, heads=2, kv_heads=1, keep=keep)


@pytest.mark.parametrize("arch", ["sm80", "sm90", "gfx942"])
def test_the_shipped_tiles(guard, arch):
    with as_if(arch):
        check(guard, attention, torch.bfloat16, queries=130, heads=1)
        check(guard, attention, torch.float32, queries=33, heads=2, kv_heads=1, causal=True)


def test_large_scores_do_not_overflow(guard):
    q, k, v = (torch.randn(1, 20, 1, 64) * 100 for _ in range(3))
    out = attention.attention(q, k, v, None, 1.0, False)
    expected = expected_attention(q.double(), k.double(), v.double(), None, 1.0, False).float()
    assert torch.allclose(out, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("keys[None, :] <= position[:, None]", "keys[None, :] < position[:, None]"),
        ("keys[None, :] <= position[:, None]", "keys[None, :] <= position[:, None] + 1"),
        ("        s = tl.where(visible, s, float(\"-inf\"))\n", ""),
        ("        s = tl.where(keep != 0, s, float(\"-inf\"))\n", ""),
        ("(first + (N - M) + 1) // BLOCK_N * BLOCK_N", "(first + (N - M) + 1 + BLOCK_N) // BLOCK_N * BLOCK_N"),
        ("acc0 = acc0 * alpha[:, None]", "acc0 = acc0 + 0.0"),
        ("(acc0 * inverse[:, None]).to(O.dtype.element_ty), mask=rows[:, None] < M)", "(acc0 * inverse[:, None]).to(O.dtype.element_ty))"),
        ("(h // group) * skh", "(h % (heads // group)) * skh"),
    ],
)  # fmt: skip
def test_planted_faults_are_caught(guard, mutant, caught, old, new):
    broken = mutant("attention", old, new)
    keep = torch.ones(1, 100, dtype=torch.bool)
    keep[0, 3:7] = False
    with caught("off by|relative error|largest error|NaN|a kernel wrote"):
        check(guard, broken, torch.float32, queries=100, heads=4, kv_heads=2, causal=True, keep=keep)
