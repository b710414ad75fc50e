"""RMSNorm and LayerNorm, with and without the residual, forward and backward."""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm.kernels import layer_norm, rms_norm
from faster_smolvlm.modeling import reference

from tests.helpers.kernel_checks import assert_close

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
WIDTHS = [1, 2, 15, 17, 63, 64, 123, 128, 160, 257, 576, 1152]


def check_rms_norm(guard, module, dtype, rows, width, residual):
    x, r = (guard.put(torch.randn(rows, width).to(dtype)) for _ in range(2))
    weight = guard.put(torch.randn(width).to(dtype))
    y, h = module.rms_norm(x, r if residual else None, weight, 1e-5)
    if residual:
        expected, total = reference.add_rms_norm(x, r, weight, 1e-5)
        assert torch.equal(h, total)
    else:
        expected = reference.rms_norm(x, weight, 1e-5)
        assert h is x
    assert_close(y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_rms_norm(guard, dtype, width):
    check_rms_norm(guard, rms_norm, dtype, 3, width, residual=width % 2 == 1)


def test_rms_norm_with_residual_is_bit_equal_in_bfloat16(guard):
    x, r, w = torch.randn(5, 576).bfloat16(), torch.randn(5, 576).bfloat16(), torch.randn(576).bfloat16()
    y, h = rms_norm.rms_norm(x, r, w, 1e-5)
    expected, total = reference.add_rms_norm(x, r, w, 1e-5)
    assert torch.equal(h, total)
    assert (y != expected).float().mean() < 0.002  # the order of the sum may move a value over a border of rounding


def test_strided_rows_and_columns(guard):
    wide = guard.put(torch.randn(4, 3, 200))
    vector = guard.put(torch.randn(100))
    for x in (wide[..., :100], wide[..., ::2], wide.transpose(0, 2)[:100].transpose(0, 2)):
        assert_close(rms_norm.rms_norm(x, None, vector, 1e-5)[0], reference.rms_norm(x, vector, 1e-5))
        y, h = layer_norm.layer_norm(x, x.contiguous(), vector, vector, 1e-5)
        assert torch.equal(h, x + x)
        assert_close(y, reference.layer_norm(x + x, vector, vector, 1e-5))


@pytest.mark.parametrize("part", range(3))
def test_every_odd_width(guard, part):
    for width in range(2 * part + 1, 258, 6):
        check_rms_norm(guard, rms_norm, DTYPES[part], 2, width, residual=width % 4 == 1)
        if width > 1:
            check_layer_norm(guard, layer_norm, DTYPES[part], 2, width, residual=width % 4 == 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 7), (5, 123), (131, 64)])
def test_rms_norm_backward(guard, dtype, rows, width):
    x, dy = (guard.put(torch.randn(rows, width).to(dtype)) for _ in range(2))
    weight = guard.put(torch.randn(width).to(dtype))
    dx, dw = rms_norm.rms_norm_backward(dy, x, weight, 1e-5)
    x_, w_ = x.double().requires_grad_(), weight.double().requires_grad_()
    normed = x_ * torch.rsqrt(x_.pow(2).mean(-1, keepdim=True) + 1e-5)
    (normed * w_ * dy.double()).sum().backward()
    assert_close(dx, x_.grad.to(dtype))
    assert_close(dw, w_.grad.to(dtype))


def check_layer_norm(guard, module, dtype, rows, width, residual):
    x, r = (guard.put(torch.randn(rows, width).to(dtype)) for _ in range(2))
    weight, bias = (guard.put(torch.randn(width).to(dtype)) for _ in range(2))
    y, h = module.layer_norm(x, r if residual else None, weight, bias, 1e-6)
    if residual:
        expected, total = reference.add_layer_norm(x, r, weight, bias, 1e-6)
        assert torch.equal(h, total)
    else:
        expected = reference.layer_norm(x, weight, bias, 1e-6)
    assert_close(y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS[1:])
def test_layer_norm(guard, dtype, width):
    check_layer_norm(guard, layer_norm, dtype, 3, width, residual=width % 2 == 1)


@pytest.mark.parametrize("module", [rms_norm, layer_norm])
def test_no_rows(guard, module):
    vector = torch.ones(64)
    vectors = (vector,) if module is rms_norm else (vector, vector)
    launcher = module.rms_norm if module is rms_norm else module.layer_norm
    assert launcher(torch.zeros(0, 64), None, *vectors, 1e-5)[0].shape == (0, 64)


def test_a_store_out_of_bounds_is_caught(guard, mutant, caught):
    broken = mutant("rms_norm", "* w).to(Y.dtype.element_ty), mask=inside)", "* w).to(Y.dtype.element_ty))")
    with caught("a kernel wrote"):
        check_rms_norm(guard, broken, torch.float32, 3, 123, residual=False)


def test_a_missing_mask_is_caught(guard, mutant, caught):
    broken = mutant("layer_norm", "tl.where(inside, x - mean, 0.0)", "x - mean")
    with caught("relative error"):
        check_layer_norm(guard, broken, torch.float32, 3, 123, residual=False)


def test_an_unmasked_load_is_caught(guard, mutant, caught):
    broken = mutant(
        "rms_norm",
        "x = tl.load(X + row * stride_x + cols, mask=inside, other=0.0)",
        "x = tl.load(X + row * stride_x + cols)",
    )
    with caught("NaN in the result"):
        check_rms_norm(guard, broken, torch.float32, 1, 123, residual=False)


def test_the_mean_over_the_padded_width_is_caught(guard, mutant, caught):
    broken = mutant("rms_norm", "tl.sum(x * x, 1) / N", "tl.sum(x * x, 1) / BLOCK")
    with caught("off by|relative error"):
        check_rms_norm(guard, broken, torch.float32, 3, 123, residual=False)
