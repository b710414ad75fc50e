"""How much of the machine other processes took while something was timed: a figure from a busy machine says little."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Load:
    """CPU seconds since the start of the machine: of everybody, stolen time included, and of some processes."""

    when: float
    everybody: float
    own: float

    @classmethod
    def now(cls, processes: Iterable[int]) -> Load | None:
        """Read the counters; None where the system is not Linux."""
        try:
            fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
            idle = fields[3] + fields[4]
            own = sum(_ticks(process) for process in processes)
        except OSError:
            return None
        return cls(time.perf_counter(), (sum(fields) - idle) / _TICK, own / _TICK)

    def others_until(self, later: Load) -> float:
        """Return the share of the cores that all but those processes took between two readings."""
        foreign = (later.everybody - self.everybody) - (later.own - self.own)
        return max(0.0, foreign / ((later.when - self.when) * (os.cpu_count() or 1)))


def _ticks(process: int) -> int:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
