"""How many cores this process may use: its affinity, and the quotas of the control groups that it is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: str | os.PathLike[str] = "/") -> int:
    """Return how many threads can run at a time, at least 1.

    These are the cores that this process may run on, or the whole cores of its CPU quota if those are fewer: more
    threads would be stopped by the kernel while others wait for them. `root` is the folder that has `proc` in it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(root: str | os.PathLike[str] = "/") -> float | None:
    """Return the least quota, in cores, of this process's control groups and all above them; None without one.

    Both versions of control groups are read. Files that are missing or that cannot be understood set no quota.
    """
    quotas = [quota for folder in _folders(Path(root)) for quota in (_version_2(folder), _version_1(folder)) if quota]
    return min(quotas, default=None)


def _folders(root: Path) -> Iterator[Path]:
    """Give the folders of the groups that limit the time of this process, inner ones first."""
    groups = [line.split(":", 2) for line in _text(root / "proc/self/cgroup").splitlines() if line.count(":") >= 2]
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mount, system = before.split(), after.split()
        if len(mount) < 5 or len(system) < 3:
            continue
        shown, point, unified = mount[3], mount[4], system[0] == "cgroup2"
        if not unified and not (system[0] == "cgroup" and "cpu" in system[2].split(",")):
            continue
        for _, controllers, path in groups:
            if "cpu" in controllers.split(",") if not unified else not controllers:
                yield from _up(root / point.lstrip("/"), shown, path)


def _up(top: Path, shown: str, path: str) -> Iterator[Path]:
    """Give the folder of a group and those above it, below a mount `top` that shows the groups from `shown` on."""
    below = os.path.relpath(path, shown)
    # A path outside of what is mounted belongs to a container that sees itself as the top.
    parts = [] if below == "." or below.startswith("..") else below.split("/")
    for count in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:count])


def _version_2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _version_1(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    """Return microseconds of work a period over those of the period; "max" and -1 mean no quota."""
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
