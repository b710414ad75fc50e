"""What the compiler makes of the kernels for GPUs that are not here; see aot_gate.py. `make gate` runs the full matrix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=550)


@pytest.mark.parametrize(
    ("target", "groups"),
    [
        ("sm80", "vision-256m,decode-256m"),
        ("sm90", "vision-256m,prefill-256m,decode-256m"),
        ("sm100", "decode-256m"),
        ("gfx942", "vision-256m"),
    ],
)
def test_the_gate_passes(target, groups):
    result = run("aot_gate.py", "--targets", target, "--groups", groups)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 bad" in result.stdout


PLANTED = """
from dataclasses import replace
from aot_gate import Budget, breaches, budget
from aot_cases import launches
from triton_aot import inspect

recorded = dict(launches("vision-256m", "sm90"))
attention = recorded["vision-256m/attention"]
tile = {"BLOCK_M": 128, "BLOCK_N": 128}
spilling = replace(attention, constants={**attention.constants, **tile, "EVEN_N": True})
print("spilling:", breaches(inspect(spilling, "sm90"), budget("vision-256m/attention", "sm90")))

mlp = dict(launches("decode-256m", "sm90"))["decode-256m/mlp_decode"]
narrow = replace(mlp, settings=replace(mlp.settings, num_warps=4))
print("narrow:", breaches(inspect(narrow, "sm90"), budget("decode-256m/mlp_decode", "sm90")))
"""


def test_planted_settings_fail_the_gate(tmp_path):
    script = tmp_path / "planted.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(HERE)!r})\n{PLANTED}")
    result = run(str(script))
    assert result.returncode == 0, result.stderr
    spilling, narrow = result.stdout.splitlines()
    assert "spills" in spilling
    assert "loads of 16 bytes" in narrow
