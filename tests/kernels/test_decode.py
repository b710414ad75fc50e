"""The kernels of one decode step against the references, over dtypes, widths that no tile divides, and batch sizes."""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm.kernels import decode_attention, down_decode, lm_head_argmax, mlp_decode, out_decode, qkv_decode
from faster_smolvlm.kernels.launch import as_if, settings
from faster_smolvlm.modeling import reference

from tests.helpers.kernel_checks import assert_close

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
WIDTHS = [(64, 32), (160, 96), (77, 33), (257, 123), (1, 1), (96, 200)]


def matrix(guard, n, k, dtype, int8=False):
    """Return (weight, scale): rows with a product of about 1."""
    if not int8:
        return guard.put((torch.randn(n, k) / k**0.5).to(dtype)), None
    weight = torch.randint(-127, 128, (n, k), dtype=torch.int8)
    return guard.put(weight), guard.put(torch.rand(n) / 64 / k**0.5)


def check_qkv(guard, module, dtype, hidden=64, heads=3, kv_heads=1, dim=32, batch=2, int8=False, capacity=20):
    x, norm = guard.put(torch.randn(batch, hidden).to(dtype)), guard.put(torch.rand(hidden).add(0.5).to(dtype))
    (wq, sq), (wk, sk), (wv, sv) = (matrix(guard, h * dim, hidden, dtype, int8) for h in (heads, kv_heads, kv_heads))
    scales = (sq, sk, sv) if int8 else None
    angle = torch.rand(capacity, dim // 2).repeat(1, 2) * 6
    cos, sin = guard.put(angle.cos().to(dtype)), guard.put(angle.sin().to(dtype))
    first = guard.put(torch.arange(batch, dtype=torch.int32))
    position = guard.put(torch.arange(batch, dtype=torch.int32) * 3 + 5)
    filled = torch.randn(2, batch, kv_heads, capacity, dim).to(dtype)
    cache, expected_cache = guard.state(filled), filled.clone()
    q = guard.empty(batch, heads, dim, dtype=dtype)
    module.qkv_decode(x, norm, (wq, wk, wv), scales, cos, sin, first, position, cache[0], cache[1], q, 1e-5)
    expected = reference.qkv_decode(
        x, norm, (wq, wk, wv), scales, cos, sin, first, position, expected_cache[0], expected_cache[1], 1e-5
    )
    assert_close(q, expected)
    assert_close(cache, expected_cache)
    changed = (cache != filled).any(-1)
    assert int(changed.sum()) == 2 * batch * kv_heads, "slots other than the token's were written"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("hidden", "dim"), [(64, 32), (77, 64), (160, 32), (257, 16)])
def test_qkv(guard, dtype, hidden, dim):
    check_qkv(guard, qkv_decode, dtype, hidden=hidden, dim=dim)


@pytest.mark.parametrize("dtype", DTYPES)
def test_qkv_int8(guard, dtype):
    check_qkv(guard, qkv_decode, dtype, hidden=96, int8=True)


def test_a_full_cache_is_not_written_past(guard):
    x, norm, dim = torch.randn(1, 32), torch.ones(32), 16
    w, table = torch.randn(dim, 32), torch.ones(9, dim)
    cache = guard.state(torch.zeros(2, 1, 1, 8, dim))
    first, position = torch.zeros(1, dtype=torch.int32), torch.full((1,), 8, dtype=torch.int32)
    q = guard.empty(1, 1, dim)
    qkv_decode.qkv_decode(x, norm, (w, w, w), None, table, table, first, position, cache[0], cache[1], q, 1e-5)
    assert (cache == 0).all()


def check_attention(guard, module, dtype, lengths, heads=9, kv_heads=3, dim=64, splits=4, capacity=None, padding=0):
    batch, capacity = len(lengths), capacity or max(lengths) + padding + 3
    q = guard.put(torch.randn(batch, heads, dim).to(dtype))
    cache = torch.full((2, batch, kv_heads, capacity, dim), float("nan")).to(dtype)
    for b, length in enumerate(lengths):
        cache[:, b, :, padding : padding + length] = torch.randn(2, kv_heads, length, dim).to(dtype)
    cache = guard.state(cache)
    first = guard.put(torch.full((batch,), padding, dtype=torch.int32))
    position = guard.put(torch.tensor(lengths, dtype=torch.int32) + padding - 1)
    partial_o, partial_l = guard.empty(batch, heads, splits, dim), guard.empty(batch, heads, splits)
    module.decode_attention(q, cache[0], cache[1], first, position, partial_o, partial_l, dim**-0.5)
    weights = torch.exp2(partial_l - partial_l.amax(-1, keepdim=True))
    out = (partial_o * (weights / weights.sum(-1, keepdim=True))[..., None]).sum(2).to(dtype)
    wide = (t.float() for t in (q, cache[0], cache[1]))
    assert_close(out, reference.decode_attention(*wide, first, position, dim**-0.5).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 200, 257])
def test_attention_lengths(guard, dtype, length):
    check_attention(guard, decode_attention, dtype, [length], heads=3, kv_heads=1)


@pytest.mark.parametrize("part", range(3))
def test_attention_of_every_odd_length(guard, part):
    lengths = list(range(1, 258, 2))[part::3]
    check_attention(guard, decode_attention, DTYPES[part], lengths, heads=2, kv_heads=1, dim=16, splits=2, padding=part)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_of_a_padded_batch(guard, dtype):
    check_attention(guard, decode_attention, dtype, [1, 70, 33], padding=5)


def test_attention_without_groups_and_with_many_splits(guard):
    check_attention(guard, decode_attention, torch.float32, [150], heads=2, kv_heads=2, splits=16)


@pytest.mark.parametrize("arch", ["sm80", "gfx942"])
def test_attention_with_the_shipped_tile(guard, arch):
    with as_if(arch):
        check_attention(guard, decode_attention, torch.bfloat16, [100], heads=3, kv_heads=1, splits=2)


def check_mlp(guard, module, dtype, k, n, batch=2, int8=False):
    x, norm = guard.put(torch.randn(batch, k).to(dtype)), guard.put(torch.rand(k).add(0.5).to(dtype))
    (gate, sg), (up, su) = matrix(guard, n, k, dtype, int8), matrix(guard, n, k, dtype, int8)
    out = guard.empty(batch, n, dtype=dtype)
    scales = (sg, su) if int8 else None
    module.mlp_decode(x, norm, gate, up, scales, out, 1e-5)
    assert_close(out, reference.mlp_decode(x, norm, gate, up, scales, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "n"), WIDTHS)
def test_mlp(guard, dtype, k, n):
    check_mlp(guard, mlp_decode, dtype, k, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mlp_int8(guard, dtype):
    check_mlp(guard, mlp_decode, dtype, 96, 200, int8=True)


def check_down(guard, module, dtype, k, n, batch=2, int8=False):
    x = guard.put(torch.randn(batch, k).to(dtype))
    residual = torch.randn(batch, n).to(dtype)
    out = guard.state(residual)
    weight, scale = matrix(guard, n, k, dtype, int8)
    module.down_decode(x, weight, scale, out, out)
    assert_close(out, reference.linear_residual(x, weight, scale, residual))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "n"), WIDTHS)
def test_down_in_place(guard, dtype, k, n):
    check_down(guard, down_decode, dtype, k, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_down_int8(guard, dtype):
    check_down(guard, down_decode, dtype, 96, 200, int8=True)


def check_out(guard, module, dtype, heads=3, dim=32, n=96, splits=3, batch=2, int8=False):
    partial_o, partial_l = torch.randn(batch, heads, splits, dim), torch.randn(batch, heads, splits) * 3
    partial_o[:, :, splits - 1] = 0.0
    partial_l[:, :, splits - 1] = float("-inf")
    weights = torch.exp2(partial_l - partial_l.amax(-1, keepdim=True))
    o = (partial_o * (weights / weights.sum(-1, keepdim=True))[..., None]).sum(2).to(dtype).flatten(1)
    weight, scale = matrix(guard, n, heads * dim, dtype, int8)
    residual = torch.randn(batch, n).to(dtype)
    out = guard.state(residual)
    module.out_decode(guard.put(partial_o), guard.put(partial_l), weight, scale, out, out)
    assert_close(out, reference.linear_residual(o, weight, scale, residual))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "dim", "n", "splits"), [(3, 32, 96, 3), (9, 64, 123, 16), (1, 16, 1, 2)])
def test_out(guard, dtype, heads, dim, n, splits):
    check_out(guard, out_decode, dtype, heads, dim, n, splits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_int8(guard, dtype):
    check_out(guard, out_decode, dtype, int8=True)


def check_head(guard, module, dtype, k, n, batch=2, int8=False, store=True):
    x, norm = guard.put(torch.randn(batch, k).to(dtype)), guard.put(torch.rand(k).add(0.5).to(dtype))
    weight, scale = matrix(guard, n, k, dtype, int8)
    embedding = guard.put(torch.randn(n, k).to(dtype))
    blocks = module.head_blocks(weight)
    logits = guard.empty(batch, n, dtype=dtype) if store else None
    best, index = guard.empty(batch, blocks), guard.empty(batch, blocks, dtype=torch.int32)
    module.lm_head_argmax(x, norm, weight, scale, logits, best, index, 1e-5)
    token, following = guard.empty(batch, dtype=torch.int64), guard.empty(batch, k, dtype=dtype)
    tokens = guard.state(torch.full((batch, 4), -1))
    position, step = (guard.state(torch.full((batch,), i, dtype=torch.int32)) for i in (7, 2))
    module.advance(best, index, embedding, token, following, tokens, position, step)
    expected_logits, expected = reference.lm_head_argmax(x, norm, weight, scale, 1e-5)
    if store:
        assert_close(logits, expected_logits)
        expected = (
            (logits == logits.amax(-1, keepdim=True)).int().argmax(-1)
        )  # a tie may fall the other way by a rounding
    assert torch.equal(token, expected)
    assert torch.equal(following, embedding[expected])
    assert tokens.tolist() == [[-1, -1, t, -1] for t in expected.tolist()]
    assert position.tolist() == [8] * batch
    assert step.tolist() == [3] * batch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "n"), [(64, 300), (77, 129), (160, 512), (32, 1)])
def test_head(guard, dtype, k, n):
    check_head(guard, lm_head_argmax, dtype, k, n)


def test_head_int8(guard):
    check_head(guard, lm_head_argmax, torch.bfloat16, 96, 200, int8=True)


def test_head_without_logits(guard):
    check_head(guard, lm_head_argmax, torch.float32, 64, 300, store=False)


def test_the_lowest_index_wins_a_tie(guard):
    x, norm, weight = torch.ones(1, 32), torch.ones(32), torch.zeros(300, 32)
    weight[[41, 140, 290]] = 1.0
    blocks = lm_head_argmax.head_blocks(weight)
    best, index = torch.empty(1, blocks), torch.empty(1, blocks, dtype=torch.int32)
    lm_head_argmax.lm_head_argmax(x, norm, weight, None, None, best, index, 1e-5)
    token, step = torch.empty(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    tokens = torch.empty(1, 1, dtype=torch.int64)
    lm_head_argmax.advance(best, index, weight, token, x.clone(), tokens, step.clone(), step)
    assert token.tolist() == [41]


def test_steps_past_the_end_of_the_token_buffer_are_not_written(guard):
    best, index = torch.zeros(1, 1), torch.full((1, 1), 5, dtype=torch.int32)
    tokens = guard.state(torch.zeros(1, 2, dtype=torch.int64))
    step = torch.full((1,), 2, dtype=torch.int32)
    token, x = torch.empty(1, dtype=torch.int64), torch.empty(1, 4)
    lm_head_argmax.advance(best, index, torch.ones(9, 4), token, x, tokens, step.clone(), step)
    assert tokens.tolist() == [[0, 0]]


def test_a_head_of_nan_stays_within_the_embedding(guard):
    best, index = torch.full((1, 2), float("nan")), torch.full((1, 2), 300, dtype=torch.int32)
    token, x = torch.empty(1, dtype=torch.int64), torch.empty(1, 4)
    step = torch.zeros(1, dtype=torch.int32)
    tokens = torch.empty(1, 1, dtype=torch.int64)
    lm_head_argmax.advance(best, index, torch.ones(9, 4), token, x, tokens, step.clone(), step)
    assert 0 <= int(token) < 9


@pytest.mark.parametrize("arch", ["sm80", "sm90"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_shipped_tiles(guard, arch, dtype):
    with as_if(arch):
        check_qkv(guard, qkv_decode, dtype, hidden=192, heads=1, batch=1)
        check_mlp(guard, mlp_decode, dtype, 192, 20, batch=1)
        check_mlp(guard, mlp_decode, dtype, 192, 40, batch=1, int8=True)
        check_out(guard, out_decode, dtype, heads=3, n=20, batch=1)
        check_down(guard, down_decode, dtype, 192, 10, batch=1)
        check_head(guard, lm_head_argmax, dtype, 64, 130, batch=1)


def test_a_matrix_longer_than_what_is_prefetched(guard):
    k = settings("down_decode", torch.device("cpu")).tile["PREFETCH"] * 128 * 3
    check_down(guard, down_decode, torch.float32, k, 8)


def test_a_row_does_not_depend_on_the_batch(guard):
    x, norm, w = torch.randn(3, 96).bfloat16(), torch.ones(96).bfloat16(), torch.randn(64, 96).bfloat16()
    together, alone = torch.empty(3, 64, dtype=torch.bfloat16), torch.empty(1, 64, dtype=torch.bfloat16)
    mlp_decode.mlp_decode(x, norm, w, w, None, together, 1e-5)
    for b in range(3):
        mlp_decode.mlp_decode(x[b : b + 1].contiguous(), norm, w, w, None, alone, 1e-5)
        assert torch.equal(together[b], alone[0])


@pytest.mark.parametrize(
    ("name", "old", "new", "check"),
    [
        ("qkv_decode", "row = local * D + pair", "row = local * D + pair + 1", check_qkv),
        ("qkv_decode", "kv_head.to(tl.int64) * stride_h + position * D + pair\n    else", "kv_head.to(tl.int64) * stride_h + position * D + D + pair\n    else", check_qkv),
        ("qkv_decode", "    if is_k:\n        angle", "    if is_q:\n        angle", check_qkv),
        ("mlp_decode", "(activated * up.to(dtype)).to(dtype), mask=keep_rows)", "(activated * up.to(dtype)).to(dtype))", lambda g, m, d: check_mlp(g, m, d, 77, 33)),
        ("mlp_decode", "gate / (1.0 + tl.exp(-gate))", "gate / (1.0 + tl.exp(gate))", lambda g, m, d: check_mlp(g, m, d, 77, 33)),
        ("down_decode", "add_residual(Y, R, b * N + row", "add_residual(Y, R - b * N, b * N + row", lambda g, m, d: check_down(g, m, d, 77, 33)),
        ("out_decode", "weights = weights / tl.sum(weights, 0)", "weights = weights + 0.0", check_out),
        ("lm_head_argmax", "score == best, row, N)", "score == best, row + 1, N)", lambda g, m, d: check_head(g, m, d, 64, 300)),
        ("decode_attention", "tl.load(Position + b) + 1, capacity", "tl.load(Position + b), capacity", lambda g, m, d: check_attention(g, m, d, [33])),
        ("decode_attention", "tl.load(Position + b) + 1, capacity", "tl.load(Position + b) + 2, capacity", lambda g, m, d: check_attention(g, m, d, [33])),
        ("decode_attention", "s = tl.where(inside[None, :], tl.dot(q, k, input_precision=\"ieee\"), float(\"-inf\"))", "s = tl.dot(q, k, input_precision=\"ieee\")", lambda g, m, d: check_attention(g, m, d, [33])),
        ("decode_attention", "high = tl.minimum(low + chunk, end)", "high = low + chunk", lambda g, m, d: check_attention(g, m, d, [33])),
    ],
)  # fmt: skip
def test_planted_faults_are_caught(guard, mutant, caught, name, old, new, check):
    broken = mutant(name, old, new)
    with caught("off by|relative error|largest error|NaN|a kernel wrote|slots other|assert"):
        check(guard, broken, torch.float32)
