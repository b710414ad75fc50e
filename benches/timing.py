"""What every benchmark shares: both sides in one run, alternating, medians, and a line about the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds of one side: the median, and the quickest and slowest round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        scale, unit = (1e3, "ms") if self.median < 10 else (1, "s")
        return f"{self.median * scale:.1f} {unit} ({self.low * scale:.1f}–{self.high * scale:.1f})"


SETTLE = 0.02
"""Seconds before each run: OpenMP's threads spin on after their work, on cores that the next side wants."""


def alternate(sides: Mapping[str, Callable[[], Any]], *, rounds: int = 9, warm_up: int = 2) -> dict[str, Timing]:
    """Time every side once a round, in turn, so that a change of the machine's mood meets them all alike."""
    for _ in range(warm_up):
        for run in sides.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            time.sleep(SETTLE)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(statistics.median(each), min(each), max(each)) for name, each in seconds.items()}


def machine(*packages: str) -> str:
    """One line for the head of a table: processor, cores in use, Python and the versions of `packages`."""
    versions = "".join(f", {name} {importlib.metadata.version(name)}" for name in packages)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, Python {platform.python_version()}{versions}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose columns line up."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [header, *rows]
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    best = next((name for name in ("avx512_bf16", "avx512f", "avx2") if name in flags), "no AVX2")
    return f"{fields.get('model name', platform.machine())} ({best})"
