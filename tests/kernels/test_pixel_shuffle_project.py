"""The connector: a gathered matrix product against shuffle, copy and product."""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm.kernels import pixel_shuffle_project
from faster_smolvlm.kernels.launch import as_if
from faster_smolvlm.modeling import reference

from tests.helpers.kernel_checks import assert_close


def check(guard, module, dtype, images=2, side=4, dim=32, scale=2, hidden=33):
    x = guard.put(torch.randn(images, side * side, dim).to(dtype))
    weight = guard.put((torch.randn(hidden, dim * scale**2) / (dim**0.5 * scale)).to(dtype))
    out = module.pixel_shuffle_project(x, weight, scale)
    assert_close(out, reference.pixel_shuffle_project(x.float(), weight.float(), scale).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("images", "side", "dim", "scale", "hidden"),
    [(1, 2, 16, 2, 1), (3, 8, 128, 2, 160), (2, 9, 48, 3, 65), (1, 16, 64, 4, 100), (5, 4, 32, 1, 17)],
)
def test_pixel_shuffle_project(guard, dtype, images, side, dim, scale, hidden):
    check(guard, pixel_shuffle_project, dtype, images, side, dim, scale, hidden)


def test_the_shipped_tile(guard):
    with as_if("sm90"):
        check(guard, pixel_shuffle_project, torch.bfloat16, 1, 9, 48, 3, 70)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("patch // S * SIDE + patch % S", "patch % S * SIDE + patch // S"),
        ("place // OUT * (S * SIDE) + place % OUT * S", "place // OUT * SIDE + place % OUT * S"),
        ("mask=(rows < M)[:, None] & (cols < N)[None, :])", "mask=(rows < M)[:, None] & (cols <= N)[None, :])"),
        ("mask=(rows < M)[:, None] & (cols < N)[None, :])", "mask=(rows <= M)[:, None] & (cols < N)[None, :])"),
    ],
)
def test_planted_faults_are_caught(guard, mutant, caught, old, new):
    broken = mutant("pixel_shuffle_project", old, new)
    with caught("off by|relative error|largest error|NaN|a kernel wrote"):
        check(guard, broken, torch.float32)
