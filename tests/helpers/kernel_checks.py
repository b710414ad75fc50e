"""Memory that tells on a kernel, and the tolerances of the comparison.

Every tensor handed to a kernel lies inside a larger buffer filled with a sentinel: NaN for floats, a large number for
integers. A kernel that reads past an end gets NaN into its result; one that writes past an end is caught when the
margins are looked at afterwards (:meth:`Guard.check`); one that forgets to write leaves NaN behind. The NaN around
inputs and the NaN around outputs are different ones, so that a kernel that copies margin to margin is caught too.
"""

from __future__ import annotations

import math

import torch

MARGIN = 16384
# As integers of the dtype's size; for floats a quiet NaN with a payload.
SENTINEL = {
    torch.int64: 2**40, torch.int32: 2**30, torch.int8: 77, torch.bool: 1,
    torch.float32: 0x7FDEAD01, torch.float16: 0x7EAD, torch.bfloat16: 0x7FDE, torch.float64: 0x7FFDEAD000000001,
}  # fmt: skip
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
BFLOAT16_STEP = 2.0**-8

_real_empty = torch.empty


class Guard:
    """Allocates inside margins and remembers them."""

    def __init__(self) -> None:
        self.buffers: list[tuple[torch.Tensor, int, int]] = []
        self.inputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def _within_margins(self, shape: tuple[int, ...], dtype: torch.dtype, sentinel: int) -> torch.Tensor:
        n = math.prod(shape)
        bits = _real_empty(n + 2 * MARGIN, dtype=BITS[dtype.itemsize]).fill_(sentinel)
        self.buffers.append((bits, n, sentinel))
        return bits.view(dtype)[MARGIN : MARGIN + n].view(shape)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return an uninitialised tensor: all sentinel."""
        return self._within_margins(shape, dtype, SENTINEL[dtype])

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of an input that no kernel may change."""
        sentinel = SENTINEL[tensor.dtype] + (2 if tensor.is_floating_point() else 0)
        copy = self._within_margins(tuple(tensor.shape), tensor.dtype, sentinel).copy_(tensor)
        self.inputs.append((copy, tensor.clone()))
        return copy

    def state(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of a tensor that a kernel may change, within its margins."""
        return self.empty(*tensor.shape, dtype=tensor.dtype).copy_(tensor)

    def check(self) -> None:
        """Raise AssertionError where a margin or an input has changed."""
        for bits, n, sentinel in self.buffers:
            for name, margin in (("before", bits[:MARGIN]), ("after", bits[MARGIN + n :])):
                changed = int((margin != sentinel).sum())
                assert changed == 0, f"a kernel wrote {changed} values {name} a tensor of {n} values"
        for copy, original in self.inputs:
            assert torch.equal(copy, original), f"a kernel changed its input {tuple(copy.shape)}"


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare a kernel's result with the reference at the tolerance of its dtype.

    float32: 1e-6 of the norm, and no value off by more than 4e-6 of the largest. float16: 1e-3 of the norm. bfloat16:
    no value further than one rounding step (2^-8 of the largest value, or 2^-7 of its own) from the reference.
    """
    assert actual.dtype == expected.dtype, f"{actual.dtype} instead of {expected.dtype}"
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    assert not actual.isnan().any(), f"{int(actual.isnan().sum())} NaN in the result"
    if actual.numel() == 0:
        return
    a, e = actual.double(), expected.double()
    error, largest = (a - e).abs(), e.abs().max().item()
    relative = ((a - e).norm() / e.norm().clamp_min(1e-30)).item()
    if actual.dtype == torch.bfloat16:
        bound = torch.maximum(e.abs() * 2 * BFLOAT16_STEP, torch.tensor(BFLOAT16_STEP * largest))
        worst = (error / bound.clamp_min(1e-30)).max().item()
        assert worst <= 1.0, f"off by {worst:.2f} rounding steps of bfloat16"
    else:
        limit = {torch.float32: 1e-6, torch.float16: 1e-3}[actual.dtype]
        assert relative <= limit, f"relative error {relative:.1e} > {limit:.0e}"
        assert error.max().item() <= 4 * limit * largest, (
            f"largest error {error.max().item():.1e}, values to {largest:.1e}"
        )
