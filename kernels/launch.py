"""How kernels are launched and with which settings: one table per architecture, no tuning at run time.

A launcher in this folder checks nothing about hardware: it asks :func:`settings` for its row of the table and hands the
kernel to :func:`launch`. The ahead-of-time gate of the tests records the same launches instead of running them
(:func:`record`), so what it compiles is what ships.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import triton

from .forced import architecture as forced_architecture
from .forced import interpreted, use_architecture

ARCHITECTURES = ("sm80", "sm90", "sm100", "gfx942")


class UnsupportedArchitectureError(RuntimeError):
    """The device has no row in the table of settings; the caller takes the plain PyTorch path."""


@dataclass(frozen=True)
class Settings:
    """One row of the table: warps and stages of the launch, and the tile as compile-time constants of the kernel.

    Without ``fp_fusion`` every product and sum is rounded, also where one instruction could do both.
    """

    num_warps: int
    num_stages: int = 1
    tile: dict[str, int] = field(default_factory=dict)
    fp_fusion: bool = True


@dataclass(frozen=True)
class Launch:
    """A recorded launch: everything that decides what the compiler makes of it."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    constants: dict[str, Any]
    settings: Settings
    pdl: bool


def _attention(block_m: int, block_n: int, num_warps: int, num_stages: int) -> Settings:
    return Settings(num_warps, num_stages, {"BLOCK_M": block_m, "BLOCK_N": block_n})


def _rows(rows: int, num_warps: int, prefetch: int = 16, fp_fusion: bool = True) -> Settings:
    """Matrix-vector kernels: output rows per program and how many tiles of weights are in flight before the wait."""
    return Settings(num_warps, 1, {"ROWS": rows, "PREFETCH": prefetch}, fp_fusion)


# Keyed by kernel, or by kernel and a variant. A tile of ROWS x BLOCK_K needs 8 elements a thread or the 16-byte loads
# vanish: rows x 64 columns over 32 x warps threads.
_COMMON: dict[str, Settings] = {
    "rms_norm": Settings(4, 1, {"ROWS": 1}),
    "layer_norm": Settings(4, 1, {"ROWS": 1}),
    # What rotates is launched without fusion: each product is rounded, as in Transformers, on every architecture.
    "rotary": Settings(2, fp_fusion=False),
    "attention/causal": _attention(64, 64, 4, 3),
    "attention/wide_head": _attention(64, 64, 4, 2),
    "attention/full_mask": _attention(64, 64, 4, 2),
    "attention/float32": _attention(32, 32, 8, 1),
    "decode_attention": Settings(4, 3, {"BLOCK_N": 64, "SPLITS": 16}),
    "decode_attention/float32": Settings(4, 1, {"BLOCK_N": 32, "SPLITS": 16}),
    "qkv_decode": _rows(8, 2, fp_fusion=False),
    "qkv_decode/float32": _rows(8, 4, 6, fp_fusion=False),
    "qkv_decode/int8": _rows(16, 4, fp_fusion=False),
    "mlp_decode": _rows(8, 2),
    "mlp_decode/float32": _rows(8, 4, 6),
    "mlp_decode/int8": _rows(16, 4),
    "out_decode": _rows(8, 2),
    "out_decode/float32": _rows(8, 4, 6),
    "out_decode/int8": _rows(16, 2, 8),
    "down_decode": _rows(4, 2),
    "down_decode/float32": _rows(4, 4, 6),
    "down_decode/int8": _rows(8, 2),
    "lm_head_argmax": _rows(64, 4, 1),
    "lm_head_argmax/float32": _rows(32, 4, 1),
    "lm_head_argmax/int8": _rows(64, 4, 1),
    "advance": Settings(4),
    "pixel_shuffle_project": Settings(4, 3, {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}),
    "pixel_shuffle_project/float32": Settings(4, 2, {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32}),
}
_TABLE: dict[str, dict[str, Settings]] = {
    "sm80": {
        **_COMMON,
        "attention": _attention(64, 64, 4, 3),
        "attention/wide_head": _attention(128, 32, 8, 2),
        "attention/full_mask": _attention(64, 64, 8, 2),
    },
    "sm90": {**_COMMON, "attention": _attention(128, 64, 4, 3)},
    "sm100": {
        **_COMMON,
        "attention": _attention(128, 64, 8, 2),
        "attention/causal": _attention(128, 32, 4, 2),
        "attention/wide_head": _attention(128, 32, 4, 2),
    },
    "gfx942": {**_COMMON, "attention": _attention(128, 64, 4, 1), "attention/causal": _attention(64, 64, 4, 1)},
}

# The interpreter pays per program and per operation, not per element: few programs, large tiles.
_TABLE["interpreter"] = {
    name: Settings(1, 1, {k: {"ROWS": 128, "PREFETCH": 1, "SPLITS": 2}.get(k, 64) for k in row.tile})
    for name, row in _TABLE["sm90"].items()
}

_record: list[Launch] | None = None


def architecture(device: torch.device) -> str:
    """Return the key of the table for ``device``.

    Raises:
        UnsupportedArchitectureError: a device that the kernels were not compiled and checked for.
    """
    forced = forced_architecture()
    if forced is not None:
        return forced
    if device.type == "cpu" and interpreted():
        return "interpreter"
    if device.type != "cuda":
        raise UnsupportedArchitectureError(
            f"the Triton kernels need a CUDA or ROCm device, not {device.type!r} (a CPU only in Triton's interpreter)"
        )
    if torch.version.hip is not None:
        name = torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
        if name in ("gfx90a", "gfx942", "gfx950"):
            return "gfx942"
        raise UnsupportedArchitectureError(f"no Triton settings for {name}; expected gfx90a, gfx942 or gfx950")
    major, minor = torch.cuda.get_device_capability(device)
    # Consumer Blackwell (12.x) has the shared memory and the matrix instructions of the Ampere row.
    row = {8: "sm80", 9: "sm90", 10: "sm100", 12: "sm80"}.get(major)
    if row is None:
        raise UnsupportedArchitectureError(
            f"no Triton settings for compute capability {major}.{minor}; expected 8.0 or newer"
        )
    return row


def settings(name: str, device: torch.device) -> Settings:
    """Return the row of ``name`` for the architecture of ``device``."""
    return _TABLE[architecture(device)][name]


def supports_pdl(device: torch.device) -> bool:
    """Return whether programmatic dependent launch exists on ``device`` (NVIDIA, compute capability 9.0 and up)."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device)[0] >= 9


def largest_power_of_two_divisor(n: int, at_most: int) -> int:
    """Return the largest power of two that divides ``n``, capped at ``at_most``."""
    return min(n & -n, at_most)


def launch(kernel: Any, grid: tuple[int, ...], row: Settings, *args: Any, pdl: bool = False, **constants: Any) -> None:
    """Launch ``kernel`` over ``grid`` with the tile, warps and stages of ``row``, on the device of its tensors.

    ``args`` are the kernel's run-time arguments in order, ``constants`` its compile-time ones besides the tile.
    """
    constants = {**{k: v for k, v in row.tile.items() if k in kernel.arg_names and k not in constants}, **constants}
    if _record is not None:
        _record.append(Launch(kernel, grid, args, constants, row, pdl))
        return
    with _device_of(args):
        kernel[grid](*args, **constants, **options(row, pdl))


def options(row: Settings, pdl: bool) -> dict[str, Any]:
    """Return the launch options of ``row``, which the compiler takes too."""
    fusion = {"enable_fp_fusion": row.fp_fusion}
    return {"num_warps": row.num_warps, "num_stages": row.num_stages, **fusion, **({"launch_pdl": True} if pdl else {})}


def _device_of(args: tuple[Any, ...]) -> AbstractContextManager[Any]:
    """Make the device of the first tensor current: Triton launches on the current one, wherever the tensors are."""
    device = next((x.device for x in args if isinstance(x, torch.Tensor)), None)
    if device is None or device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


@contextmanager
def as_if(arch: str) -> Iterator[None]:
    """Use the settings of ``arch`` whatever the device is."""
    if arch not in _TABLE:
        raise ValueError(f"unknown architecture {arch!r}; expected one of {', '.join(_TABLE)}")
    with use_architecture(arch):
        yield


@contextmanager
def record(arch: str) -> Iterator[list[Launch]]:
    """Collect the launches made inside, with the settings of ``arch``, instead of running them."""
    global _record
    before, _record = _record, []
    try:
        with as_if(arch):
            yield _record
    finally:
        _record = before


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as (rows, n) whose values of a row lie side by side; a copy where they do not."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(1) == 1 or flat.shape[1] == 1 else flat.contiguous()


def next_power_of_2(n: int) -> int:
    """Return the smallest power of two that is at least ``n``."""
    return int(triton.next_power_of_2(n))
