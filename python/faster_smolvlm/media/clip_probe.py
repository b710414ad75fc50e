"""Opening a suspicious clip in a process of its own first, since FFmpeg cannot be interrupted while it opens one.

FFmpeg decodes a clip's first packets when it opens it, and builds a table of its samples. A packet of some megabytes
may hold millions of units of a few bytes, each of which takes microseconds and kilobytes; a table may claim millions of
samples. The child process watches its memory. If it ends for want of memory or time, the clip is refused.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

from .child import child_command
from .clip_scan import is_suspicious
from .video_file import VideoFile

_MEMORY = 1 << 30  # bytes that opening may take at most, whatever the policy
_OUT_OF_MEMORY = 77  # the status with which the child says so
_OUT_OF_TIME = {getattr(signal, name, None) for name in ("SIGXCPU", "SIGKILL")}
# FFmpeg goes on if it gets no memory, and then says nothing: a limit of the system would not be noticed.
_OPEN = """
import io, json, os, sys, threading, time
options, path, seconds, memory, status = json.loads(sys.argv[1])
data = sys.stdin.buffer.read()
import av
def taken():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def watch(most):
    while taken() < most:
        time.sleep(0.002)
    os._exit(status)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if sys.platform == "linux":
        threading.Thread(target=watch, args=(taken() + memory,), daemon=True).start()
    else:
        resource.setrlimit(resource.RLIMIT_AS, (2 * memory, 2 * memory))
except (ImportError, OSError, ValueError):
    pass
try:
    av.open(path or io.BytesIO(data), options=options, metadata_errors="replace").close()
except MemoryError:
    os._exit(status)
except Exception:
    pass
os._exit(0)
"""


def check_opening(file: VideoFile, options: dict[str, str]) -> None:
    """Refuse a clip that FFmpeg does not open in time, or that takes more than half of `max_clip_bytes` meanwhile.

    Raises a `MediaLimitError`. Usual clips cost milliseconds.
    """
    if not is_suspicious(file):
        return
    seconds = max(0.0, file.deadline - time.monotonic())
    path = None if file.path is None else f"file:{os.path.abspath(file.path)}"
    memory = min(_MEMORY, file.policy.max_clip_bytes // 2)
    request = json.dumps([options, path, int(seconds) + 1, memory, _OUT_OF_MEMORY])
    try:
        command = child_command(_OPEN, request)
        child = subprocess.run(command, input=file.data or b"", capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise file.limit("takes too many seconds to open", "max_decode_seconds") from None
    except OSError:
        raise file.broken("looks as if opening it took long, and no process can be started to try") from None
    if child.returncode == _OUT_OF_MEMORY:
        raise file.limit(f"takes more than {memory} bytes to open, half of what a clip may take", "max_clip_bytes")
    if -child.returncode in _OUT_OF_TIME:
        raise file.limit("takes too many seconds to open", "max_decode_seconds")
    if child.returncode:  # the decoder broke
        raise file.broken("cannot be opened: the process that tried ended without an answer")
