"""The gate for kernels on GPUs that are not here: compile what ships, hold it to budgets, exit 1 on a breach.

    python tests/kernels/aot_gate.py [--groups a,b] [--targets sm80,sm90] [--only attention] [--update]

Budgets that hold for every compiler: no spills, enough programs per multiprocessor, 16-byte loads, the right matrix
instructions, weights on their way before the wait. The ratchet (aot_ratchet.json, written by --update) holds the number
of instructions of each main loop to what it was with the same release of triton, plus 3 %; a release that it does not
know is held to the budgets alone, and the last line says so; and so are the groups in `aot_cases.MORE`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script is started with its own folder alone

import triton

from tests.helpers.aot_cases import GROUPS, MORE, launches
from tests.helpers.triton_aot import TARGETS, Report, inspect

RATCHET = Path(__file__).with_name("aot_ratchet.json")
RELEASE = ".".join(triton.__version__.split(".")[:2])
GROWTH = 1.03
MATRIX = {"sm80": "HMMA", "sm90": "HGMMA", "sm100": "UTCHMMA", "gfx942": "MFMA"}


@dataclass(frozen=True)
class Budget:
    """What a kernel may cost. `before_wait`: 16-byte weight loads ahead of the wait for the previous kernel."""

    programs: int = 2
    shared: int = 232448
    wide_loads: int = 0
    loop: int | None = None
    need: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()
    before_wait: int = 0


def budget(name: str, target: str) -> Budget:
    """Return the budget of the launch `name` (group/kernel) on `target`.

    The sm80 settings also serve compute capability 8.6, 8.9 and 12.0, which have 99 KiB of shared memory.
    """
    return replace(_budget(name, target), shared={"sm80": 99 * 1024, "gfx942": 64 * 1024}.get(target, 227 * 1024))


def _budget(name: str, target: str) -> Budget:
    group, kernel = name.split("/")
    kernel = kernel.split("#")[0]
    nvidia, waits = target.startswith("sm"), target in ("sm90", "sm100")
    half = not group.endswith("fp32")
    if kernel in ("attention", "pixel_shuffle_project") and half:
        found = Budget(need=(MATRIX[target],))
        if target == "sm90":
            found = replace(found, ban=("HMMA",))
        if target == "sm80":
            found = replace(found, need=("HMMA", "LDGSTS"))
        if name == "vision-256m/attention" and target == "sm90":
            found = replace(found, loop=505)
        if group == "vision-2.2b" or group in MORE or target == "gfx942":
            found = replace(found, programs=1)
        return found
    if kernel in ("mlp_decode", "qkv_decode", "down_decode", "out_decode") and group == "decode-256m" and nvidia:
        loads = {"mlp_decode": 16, "qkv_decode": 16, "down_decode": 12, "out_decode": 9}[kernel]
        return Budget(
            programs=4,
            wide_loads=loads,
            need=("ACQBULK", "PREEXIT") if waits else (),
            before_wait=loads if waits else 0,
        )
    return Budget(programs=1)


def breaches(report: Report, limit: Budget) -> list[str]:
    """Return what breaks the budget, in words."""
    found = []
    if report.spills:
        found.append(f"{report.spills} spills")
    if report.programs < limit.programs:
        found.append(f"{report.programs} programs per multiprocessor < {limit.programs}")
    if report.shared > limit.shared:
        found.append(f"{report.shared} bytes of shared memory > {limit.shared}")
    if report.wide_loads < limit.wide_loads:
        found.append(f"{report.wide_loads} loads of 16 bytes < {limit.wide_loads}")
    if limit.loop is not None and report.loop_length > limit.loop:
        found.append(f"main loop of {report.loop_length} instructions > {limit.loop}")
    found += [f"no {op}" for op in limit.need if not report.opcodes[op]]
    found += [f"{report.opcodes[op]} {op}" for op in limit.ban if report.opcodes[op]]
    if limit.before_wait:
        at = report.sequence.index("ACQBULK") if "ACQBULK" in report.sequence else 0
        early = sum(op == "LDG.128" for op in report.sequence[:at])
        if early < limit.before_wait:
            found.append(f"{early} loads of 16 bytes before the wait < {limit.before_wait}")
    return found


def growth(key: str, loop: int, lengths: dict[str, int]) -> list[str]:
    """Return what breaks the ratchet, in words: a longer main loop, or one that was never written down."""
    if not lengths or not loop:
        return []
    if key not in lengths:
        return [f"main loop of {loop} instructions is not in the ratchet: run with --update"]
    return [f"main loop of {loop} instructions, was {lengths[key]}"] if loop > lengths[key] * GROWTH else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--update", action="store_true", help="write the ratchet anew for what was compiled")
    arguments = parser.parse_args()
    lengths = json.loads(RATCHET.read_text()).get(RELEASE, {}) if RATCHET.exists() else {}
    bad = compiled = 0
    start = time.perf_counter()
    for target in arguments.targets.split(","):
        for group in arguments.groups.split(","):
            for name, launch in launches(group, target):
                if arguments.only not in name.split("/")[1]:
                    continue
                try:
                    report = inspect(launch, target)
                except Exception as error:
                    bad += 1
                    print(
                        f"FAIL {target:7s}{name:36s} does not compile: {str(error).strip().splitlines()[0][:200]}",
                        flush=True,
                    )
                    continue
                compiled += 1
                found = breaches(report, budget(name, target))
                key, loop = f"{target}/{name}", report.loop_length
                if group in MORE:
                    pass
                elif not arguments.update:
                    found += growth(key, loop, lengths)
                elif loop:
                    lengths[key] = loop
                bad += bool(found)
                print(
                    f"{'FAIL' if found else 'ok  '} {target:7s}{name:36s} warps {launch.settings.num_warps} registers "
                    f"{report.registers:3d} shared {report.shared:6d} programs {report.programs:2d} wide {report.wide_loads:3d} "
                    f"loop {loop:4d} {'; '.join(found)}",
                    flush=True,
                )
    if arguments.update:
        ratchet = json.loads(RATCHET.read_text()) if RATCHET.exists() else {}
        RATCHET.write_text(json.dumps({**ratchet, RELEASE: lengths}, indent=1, sort_keys=True) + "\n")
    known = "" if lengths else f", no ratchet for {RELEASE}"
    print(f"triton {triton.__version__}: {compiled} compiled, {bad} bad{known}, {time.perf_counter() - start:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
