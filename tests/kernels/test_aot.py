"""What the compiler makes of the kernels for GPUs that are not here; see aot_gate.py. `make gate` runs the full matrix."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GATE = "tests/kernels/aot_gate.py"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | variables
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=550, cwd=ROOT)


GROUPS = {
    "sm80": "vision-256m,vision-2.2b,decode-256m",
    "sm90": "vision-256m,vision-2.2b,prefill-256m,decode-256m,decode-500m-int8,decode-2.2b",
    "sm100": "decode-256m,decode-2.2b",
    "gfx942": "vision-256m,decode-256m",
}


@pytest.mark.parametrize("target", GROUPS)
def test_the_gate_passes(target):
    result = run(GATE, "--targets", target, "--groups", GROUPS[target])
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 bad" in result.stdout


@pytest.mark.parametrize("target", GROUPS)
def test_the_gate_passes_with_an_older_compiler(tmp_path, target):
    """`make test` installs it; its own cache, since two releases do not share one."""
    older = os.environ.get("FASTER_SMOLVLM_OLD_TRITON", "")
    if not (Path(older) / "triton" / "__init__.py").exists():
        pytest.skip(
            "FASTER_SMOLVLM_OLD_TRITON names no folder with triton: `make test` installs one where a wheel exists"
        )
    result = run(
        GATE, "--targets", target, "--groups", "vision-256m,vision-2.2b,decode-256m",
        PYTHONPATH=older, TRITON_CACHE_DIR=str(tmp_path),
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "triton 3.6" in result.stdout
    assert " 0 bad" in result.stdout


PLANTED = """
from dataclasses import replace
from tests.kernels.aot_gate import breaches, budget, growth
from tests.helpers.aot_cases import launches
from tests.helpers.triton_aot import inspect

recorded = dict(launches("vision-256m", "sm90"))
attention = recorded["vision-256m/attention"]
tile = {"BLOCK_M": 128, "BLOCK_N": 128}
spilling = replace(attention, constants={**attention.constants, **tile, "EVEN_N": True})
print("spilling:", breaches(inspect(spilling, "sm90"), budget("vision-256m/attention", "sm90")))

mlp = dict(launches("decode-256m", "sm90"))["decode-256m/mlp_decode"]
narrow = replace(mlp, settings=replace(mlp.settings, num_warps=4))
print("narrow:", breaches(inspect(narrow, "sm90"), budget("decode-256m/mlp_decode", "sm90")))

loop = inspect(attention, "sm90").loop_length
print("longer:", growth("a", loop, {"a": loop - 20}), growth("a", loop, {"b": 1}), growth("a", loop, {"a": loop}))
"""


def test_planted_settings_fail_the_gate():
    result = run("-c", PLANTED)
    assert result.returncode == 0, result.stderr
    spilling, narrow, longer = result.stdout.splitlines()
    assert "spills" in spilling
    assert "loads of 16 bytes" in narrow
    assert re.fullmatch(
        r"longer: \['main loop of \d+ instructions, was \d+'\] \['.* not in the ratchet.*'\] \[\]", longer
    )


ROTATIONS = """
import re
import torch
from faster_smolvlm.kernels import rotary
from faster_smolvlm.kernels.launch import record
from tests.helpers.aot_cases import launches
from tests.helpers.triton_aot import compile_launch

def fused(launch, target, kind):
    code = compile_launch(launch, target).asm["ptx"]
    constant = set(re.findall(r"mov\\.b16\\s+(%rs\\d+), 0x", code))  # x * y - 0 and x * 1 + y are how sm80 makes products and sums
    found = re.findall(rf"fma\\S*\\.{kind}\\S*\\s+[^,]*, ([^,]*), ([^,]*), ([^;]*);", code)
    return sum(not constant & {x.strip() for x in operands} for operands in found)

for dtype, kind in ((torch.float32, "f32"), (torch.float16, "f16"), (torch.bfloat16, "bf16")):
    q, k, table = (torch.empty(*s, dtype=dtype, device="meta") for s in ((1, 7, 9, 64), (1, 7, 3, 64), (1, 7, 64)))
    for target in ("sm80", "sm90", "sm100"):
        with record(target) as recorded:
            rotary.rotary(q, k, table, table)
        print("rotary", target, kind, fused(recorded[0], target, kind))
        group = {"f32": "decode-256m-fp32", "f16": "decode-256m-fp16", "bf16": "decode-256m"}[kind]
        qkv = dict(launches(group, target))[f"{group}/qkv_decode"]
        if kind != "f32":  # its products of weights are float32 too, and fused on purpose
            print("qkv", target, kind, fused(qkv, target, kind))
        elif qkv.settings.fp_fusion:
            print("qkv is launched with fusion", 1)
"""


def test_rotations_round_every_product():
    """As Transformers does: an instruction that multiplies and adds would round once, on some architectures only."""
    result = run("-c", ROTATIONS)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 15
    assert all(line.endswith(" 0") for line in lines), result.stdout
