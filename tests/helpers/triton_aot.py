"""Compile recorded launches ahead of time, for GPUs that are not here, and read what the compiler made of them.

Needs no driver and no CUDA toolkit: the triton wheel carries ptxas, cuobjdump and nvdisasm. Must run in a process
without TRITON_INTERPRET.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from faster_smolvlm.kernels.launch import options
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm80": GPUTarget("cuda", 80, 32),
    "sm90": GPUTarget("cuda", 90, 32),
    "sm100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int8: "i8", torch.int32: "i32",
    torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Of one multiprocessor: registers, KiB of shared memory, threads, programs.
MULTIPROCESSOR = {"sm80": (65536, 164, 2048, 32), "sm90": (65536, 228, 2048, 32), "sm100": (65536, 228, 2048, 32)}


@dataclass(frozen=True)
class Report:
    """What one kernel costs on one target."""

    registers: int
    spills: int
    shared: int
    programs: int
    wide_loads: int
    opcodes: Counter[str]
    loop: Counter[str]
    sequence: list[str] = field(default_factory=list)

    @property
    def loop_length(self) -> int:
        return sum(self.loop.values())


def specialise(launch: Any) -> ASTSource:
    """Describe a launch to the compiler as its just-in-time path would: 1 is a constant, 16-divisible is noted."""
    kernel = launch.kernel
    signature, constants, attributes = {}, {}, {}
    run_time = iter(launch.args)
    for i, name in enumerate(kernel.arg_names):
        if name in launch.constants:
            signature[name], constants[(i,)] = "constexpr", launch.constants[name]
            continue
        value = next(run_time)
        if isinstance(value, torch.Tensor):
            signature[name] = "*" + TYPES[value.dtype]
            if value.storage_offset() * value.element_size() % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif value == 1:
            signature[name], constants[(i,)] = "constexpr", 1
        else:
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    assert next(run_time, None) is None, f"{kernel.__name__}: more arguments than parameters"
    return ASTSource(kernel, signature, constants, attributes)


def compile_launch(launch: Any, target: str) -> Any:
    return triton.compile(specialise(launch), target=TARGETS[target], options=options(launch.settings, launch.pdl))


def _tool(name: str, *args: str) -> str:
    return subprocess.run([str(TOOLS / name), *args], capture_output=True, text=True, check=True).stdout


def _instructions(listing: str) -> list[tuple[int, str, list[str]]]:
    """Return (address, text, labels before it) of every instruction of a disassembly."""
    found, labels = [], []
    for line in listing.splitlines():
        if match := re.match(r"\s*(\.L_x_\d+):", line):
            labels.append(match[1])
        elif match := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", line):
            found.append((int(match[1], 16), match[2], labels))
            labels = []
    return found


def _opcode(text: str) -> str:
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0]


def _main_loop(code: list[tuple[int, str, list[str]]]) -> Counter[str]:
    """Return the opcodes of the innermost backward loop with the most matrix (else multiply-add) instructions."""
    start = {label: address for address, _, labels in code for label in labels}
    best: tuple[tuple[int, int], Counter[str]] = ((-1, 0), Counter())
    for address, text, _ in code:
        match = re.search(r"(?:BRA\S*|s_c?branch\S*)\s.*?(\.L\w+)", text)
        if not match or start.get(match[1], address) >= address:
            continue
        low = start[match[1]]
        ops = Counter(_opcode(t).split(".")[0] for a, t, _ in code if low <= a <= address)
        work = sum(n for op, n in ops.items() if "MMA" in op or "mfma" in op) * 1000
        work += sum(n for op, n in ops.items() if op == "FFMA" or op.startswith(("v_fma", "v_pk_fma")))
        if (work, low - address) > best[0]:
            best = ((work, low - address), ops)
    return best[1] if best[0][0] > 0 else Counter()


def _nvidia(kernel: Any, target: str) -> Report:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = dict(re.findall(r"(REG|STACK):(\d+)", _tool("cuobjdump", "-res-usage", file.name)))
        code = _instructions(_tool("nvdisasm", "-c", file.name))
    full = [_opcode(text) for _, text, _ in code]
    registers, shared, warps = int(usage["REG"]), kernel.metadata.shared, kernel.metadata.num_warps
    file_size, kib, threads, most = MULTIPROCESSOR[target]
    per_warp = -(-registers * 32 // 256) * 256
    programs = min(file_size // per_warp // warps, kib * 1024 // (shared + 1024), threads // (32 * warps), most)
    return Report(
        registers=registers,
        spills=sum(op.startswith(("STL", "LDL")) for op in full) + int(usage["STACK"]),
        shared=shared,
        programs=programs,
        wide_loads=sum(op.startswith("LDG.") and ".128" in op for op in full),
        opcodes=Counter(op.split(".")[0] for op in full),
        loop=_main_loop(code),
        sequence=[
            "LDG.128" if op.startswith("LDG.") and ".128" in op else op.split(".")[0]
            for op in full
            if op.startswith(("LDG.", "STG.", "ACQBULK", "PREEXIT"))
        ],
    )


def _amd(kernel: Any) -> Report:
    text = kernel.asm["amdgcn"]

    def number(pattern: str) -> int:
        match = re.search(pattern, text)
        return int(match[1]) if match else 0

    code: list[tuple[int, str, list[str]]] = []
    labels: list[str] = []
    for line in text.splitlines():
        if match := re.match(r"(\.LBB\w+):", line):
            labels.append(match[1])
        elif match := re.match(r"\s+((?:[vs]|ds|buffer|global)_\w+.*)", line):
            code.append((len(code), match[1], labels))
            labels = []
    body = [_opcode(instruction) for _, instruction, _ in code]
    return Report(
        registers=number(r"\.vgpr_count:\s+(\d+)"),
        spills=number(r"\.vgpr_spill_count:\s+(\d+)") + number(r"\.private_segment_fixed_size:\s+(\d+)"),
        shared=kernel.metadata.shared,
        programs=number(r"; Occupancy:\s+(\d+)"),
        wide_loads=sum(op.endswith("load_dwordx4") for op in body),
        opcodes=Counter("MFMA" if op.startswith("v_mfma") else op for op in body),
        loop=_main_loop(code),
    )


_reports: dict[str, Report] = {}


def inspect(launch: Any, target: str) -> Report:
    """Compile ``launch`` for ``target`` and report; a compile error propagates. Equal launches are read once."""
    kernel = compile_launch(launch, target)
    if kernel.hash not in _reports:
        _reports[kernel.hash] = _amd(kernel) if target.startswith("gfx") else _nvidia(kernel, target)
    return _reports[kernel.hash]
