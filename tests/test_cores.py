"""Default threads: affinity, and the quotas of both versions of control groups."""

import os
from pathlib import Path

import pytest
from faster_smolvlm import cores
from faster_smolvlm.cores import cpu_quota, usable_cores

V2 = "30 23 0:26 {shown} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 25 0:29 {shown} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
SETS = "34 25 0:30 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset"


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """Write a tree of control groups."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def two(path: str, mounted: str = "/", **quotas: str) -> tuple[str, str, dict[str, str]]:
    files = {f"sys/fs/cgroup/{name.replace('_', '/')}/cpu.max": text for name, text in quotas.items()}
    return f"0::{path}", V2.format(shown=mounted), files


def one(path: str, mounted: str, folder: str, quota: str, period: str) -> tuple[str, str, dict[str, str]]:
    at = f"sys/fs/cgroup/cpu,cpuacct{folder}"
    files = {f"{at}/cpu.cfs_quota_us": quota, f"{at}/cpu.cfs_period_us": period}
    return f"5:cpuset:/other\n4:cpu,cpuacct:{path}\n0::/", f"{SETS}\n{V1.format(shown=mounted)}", files


@pytest.mark.parametrize(
    ("tree", "quota"),
    [
        (two("/a/b", a="max 100000", a_b="250000 100000"), 2.5),
        (two("/a/b", a="150000 100000", a_b="400000 100000"), 1.5),
        (two("/a/b", a="300000 100000", a_b="max 100000"), 3.0),
        (two("/a/b", a="max 100000", a_b="max 100000"), None),
        (two("/docker/a", "/docker/a", **{".": "50000 100000"}), 0.5),
        (two("/../../a", **{".": "200000 50000"}), 4.0),
        (two("/a", a="nonsense"), None),
        (two("/a", a="100000 0"), None),
        (one("/a/b", "/", "/a/b", "200000", "100000"), 2.0),
        (one("/a/b", "/", "/a", "300000", "100000"), 3.0),
        (one("/a/b", "/", "/a", "-1", "100000"), None),
        (one("/docker/x", "/docker/x", "", "75000", "50000"), 1.5),
        (one("/docker/x", "/", "/other", "75000", "50000"), None),
    ],
)
def test_the_least_quota_of_all_groups(
    tmp_path: Path, tree: tuple[str, str, dict[str, str]], quota: float | None
) -> None:
    assert cpu_quota(machine(tmp_path, *tree)) == quota


def test_threads_are_within_affinity_and_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert usable_cores(tmp_path) == 8, "no control groups"
    for quota, threads in [("250000", 2), ("50000", 1), ("6400000", 8), ("max", 8)]:
        assert usable_cores(machine(tmp_path, *two("/a", a=f"{quota} 100000"))) == threads
    assert cores.usable_cores() >= 1
