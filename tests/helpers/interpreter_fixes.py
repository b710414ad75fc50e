"""Make Triton's interpreter right for bfloat16, and quicker.

It keeps bfloat16 as uint16 and, left alone, adds and multiplies the bit patterns; its conversion from float32
truncates. :func:`install` replaces five methods of its builder: operands go up to float32, results come down with round
to nearest even, as the hardware does. It also has the language replaced once rather than around every launch and every
call of a helper, which is most of what a small kernel costs. :func:`self_test` fails loudly should those private names
move.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter


def widen(bits: np.ndarray) -> np.ndarray:
    return (np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def is_bfloat16(handle) -> bool:
    return handle.dtype.scalar == tl.bfloat16


def install() -> None:
    builder = interpreter.InterpreterBuilder
    if getattr(builder, "computes_bfloat16", False):
        return
    handle = interpreter.TensorHandle
    binary, unary, dot, cast, convert = (
        builder.binary_op, builder.unary_op, builder.create_dot, builder.cast_impl, builder.create_fp_to_fp,
    )  # fmt: skip

    def up(x):
        return handle(widen(x.data), tl.float32) if is_bfloat16(x) else x

    def binary_op(self, lhs, rhs, op):
        if not (is_bfloat16(lhs) or is_bfloat16(rhs)):
            return binary(self, lhs, rhs, op)
        out = op(up(lhs).data, up(rhs).data)
        return handle(out, tl.int1) if out.dtype == np.bool_ else handle(narrow(out), tl.bfloat16)

    def unary_op(self, x, op):
        return handle(narrow(op(widen(x.data))), tl.bfloat16) if is_bfloat16(x) else unary(self, x, op)

    def create_dot(self, a, b, d, *args):
        return dot(self, up(a), up(b), d, *args)

    def cast_impl(self, src, dst):
        if is_bfloat16(src):
            return up(src) if dst.scalar == tl.float32 else cast(self, up(src), dst)
        if dst.scalar == tl.bfloat16:
            return handle(narrow(src.data.astype(np.float32)), tl.bfloat16)
        return cast(self, src, dst)

    def create_fp_to_fp(self, src, dst, rounding):
        if is_bfloat16(src) or dst.scalar == tl.bfloat16:
            return cast_impl(self, src, dst)
        return convert(self, src, dst, rounding)

    builder.binary_op, builder.unary_op, builder.create_dot = binary_op, unary_op, create_dot
    builder.cast_impl, builder.create_fp_to_fp = cast_impl, create_fp_to_fp
    builder.computes_bfloat16 = True
    _replace_language_once()


def _replace_language_once() -> None:
    """Keep what a launch replaces in the modules of the language that it sees; this process only interprets."""
    replace, kept = interpreter._patch_lang, {}

    def once(function):
        seen = frozenset(value.__name__ for value in function.__globals__.values() if value is tl or value is tl.core)
        if seen not in kept:
            kept[seen] = replace(function)
        return interpreter._LangPatchScope()

    interpreter._patch_lang = once


@triton.jit
def arithmetic_kernel(X, Y, Sum, Product, Rounded, Dot, N: tl.constexpr):
    i = tl.arange(0, N)
    x, y = tl.load(X + i), tl.load(Y + i)
    tl.store(Sum + i, x + y)
    tl.store(Product + i, x * y)
    tl.store(Rounded + i, (x.to(tl.float32) * 1.001).to(tl.bfloat16))
    j = tl.arange(0, 16)
    square = j[:, None] * 16 + j[None, :]
    tl.store(Dot + square, tl.dot(tl.load(X + square), tl.load(Y + square)))


def self_test() -> None:
    """Compare the interpreter's bfloat16 with torch's: bit for bit, the dot to float32 accuracy."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(256, generator=generator).bfloat16() for _ in range(2))
    total, product, rounded = (torch.empty_like(x) for _ in range(3))
    dot = torch.empty(16, 16)
    arithmetic_kernel[(1,)](x, y, total, product, rounded, dot, N=256)
    expected = x.view(16, 16).float() @ y.view(16, 16).float()
    good = (
        torch.equal(total, x + y)
        and torch.equal(product, x * y)
        and torch.equal(rounded, (x.float() * 1.001).bfloat16())
        and torch.allclose(dot, expected, rtol=1e-5, atol=1e-5)
    )
    if not good:
        raise RuntimeError(f"the interpreter of triton {triton.__version__} is not right for bfloat16: adapt install()")
