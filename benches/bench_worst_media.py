"""What the worst files cost until they are refused or answered, under the strict policy.

python -m benches.bench_worst_media [--only WORD …] [--megabytes N]

Each file is made in this process and read in a process of its own, from bytes, as a server would. Printed are its size,
the CPU seconds of reading it (child processes included), the peak memory of the whole process (with what Python, NumPy
and Pillow take) plus that of its children, and what came of it. Ends with status 1 if a file took more than 2 s of CPU
or 512 MB. Linux only. `worst_pictures` makes the pictures, `worst_clips` the clips.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benches.timing import machine, table

CPU_SECONDS, PEAK_BYTES = 2.0, 512_000_000
PATIENCE = 40.0  # seconds for one file
TABLES = {"picture": "benches.worst_pictures", "clip": "benches.worst_clips"}


def makers() -> dict[str, tuple[str, Callable[[int], bytes]]]:
    """Return every maker by its name, with the kind of medium; a maker gets the bytes that the file may have."""
    found: dict[str, tuple[str, Callable[[int], bytes]]] = {}
    for kind, name in TABLES.items():
        if importlib.util.find_spec(name):
            worst: Mapping[str, Callable[[int], bytes]] = importlib.import_module(name).WORST
            found |= {f"{kind}: {file}": (kind, make) for file, make in worst.items()}
    return found


def read_one(kind: str, path: str) -> dict[str, object]:
    """Read one file as strict services do; returns what it cost and what came of it."""
    from faster_smolvlm.media import MediaError, MediaPolicy, load_image
    from faster_smolvlm.media.video import load_video

    policy, data = MediaPolicy.strict(), Path(path).read_bytes()
    start, before = time.perf_counter(), _cpu_seconds()
    try:
        result = load_image(data, policy) if kind == "picture" else load_video(data, policy=policy)[0]
        outcome = f"answered: {getattr(result, 'size', None) if kind == 'picture' else result.shape}"
    except MediaError as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds, cpu = time.perf_counter() - start, _cpu_seconds() - before
    return {"seconds": seconds, "cpu": cpu, "peak": peak_bytes(), "outcome": outcome}


def peak_bytes() -> int:
    """Return the peak memory of this process, and of its largest child if it had one."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    # `ru_maxrss` of this process counts what its parent held before the start.
    lines = Path("/proc/self/status").read_text().splitlines()
    return children + next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(kind: str, data: bytes) -> dict[str, object]:
    """Read `data` in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "worst")
        path.write_bytes(data)
        command = [sys.executable, "-m", "benches.bench_worst_media", "--read", kind, str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return {"seconds": PATIENCE, "cpu": PATIENCE, "peak": 0, "outcome": "no end"}
    if done.returncode:
        return {"seconds": 0.0, "cpu": 0.0, "peak": 0, "outcome": f"status {done.returncode}: {done.stderr[-300:]}"}
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names that contain one of these words")
    parser.add_argument("--megabytes", type=int, default=20, help="size of the files that can be of any size")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read_one(*arguments.read)))
        return 0
    rows: list[list[str]] = []
    bad: list[str] = []
    for name, (kind, make) in makers().items():
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        data = make((arguments.megabytes << 20) - 4096)
        cost = measure(kind, data)
        cpu, peak = float(str(cost["cpu"])), int(str(cost["peak"]))
        failed = cpu > CPU_SECONDS or peak > PEAK_BYTES or not peak
        bad += [name] if failed else []
        columns = (f"{len(data) / 1e6:.2f}", f"{cost['seconds']:.2f}", f"{cpu:.2f}", f"{peak / 1e6:.0f}")
        rows.append([name, *columns, "NO" if failed else "yes", str(cost["outcome"])[:110]])
        print(*rows[-1], sep=" | ", flush=True)
    print(machine())
    print(table(["file", "MB", "seconds", "CPU s", "peak MB", "within", "outcome"], rows))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
