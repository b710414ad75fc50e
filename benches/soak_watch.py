"""Watch a looped clip for minutes and see whether memory grows.

    python -m benches.soak_watch [--minutes 10] [--model demo] [clip]

The frames come at the pace of a camera, two a second, and the minutes are those of the video. Each prints the most
memory that was resident in it; fails where the last minute's is 1 % or more above the first's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.bench_video import write_clip

EVERY = 0.5


def resident() -> int:
    """Bytes of memory that this process has now."""
    import os

    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def looped(path: Path) -> Iterator[tuple[float, Any]]:
    """The frames of a clip again and again, their times going on, none before its time as from a camera."""
    from faster_smolvlm.vlm.watch import frames_of_file

    begun = time.monotonic()
    start = 0.0
    while True:
        seconds = 0.0
        for seconds, frame in frames_of_file(path, EVERY):
            time.sleep(max(0.0, begun + start + seconds - time.monotonic()))
            yield start + seconds, frame
        start += seconds + EVERY


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    from faster_smolvlm import SmolVLM

    clip = options.clip or write_clip(Path(tempfile.gettempdir()) / "faster-smolvlm-soak.mp4", 10, 3, gop=60)
    vlm = SmolVLM.from_pretrained(options.model, device="cpu")
    peaks: list[int] = []
    peak = 0
    for count, seen in enumerate(vlm.watch(looped(clip), prompt="What moves?", every=EVERY, max_new_tokens=8), start=1):
        passed = seen.times[-1]
        peak = max(peak, resident())
        if passed >= 60 * (len(peaks) + 1):
            peaks.append(peak)
            peak = 0
            print(f"{len(peaks)} min: {count} answers, {peaks[-1] / 2**20:.1f} MiB, {seen.text!r:.40}", flush=True)
        if passed >= 60 * options.minutes:
            break
    if len(peaks) < 2:
        print("less than two minutes tell nothing about growth")
        return 1
    growth = peaks[-1] / peaks[0] - 1
    print(f"growth after the first minute: {growth:.2%}")
    return int(growth >= 0.01)


if __name__ == "__main__":
    sys.exit(main())
