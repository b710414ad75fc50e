"""Opening a suspicious clip in a process of its own first, since FFmpeg cannot be interrupted while it opens one.

FFmpeg decodes a clip's first packets when it opens it. A packet of some megabytes may hold millions of units of a few
bytes, each of which takes microseconds. Such packets compress well, as packets of pictures do not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import zlib

from .child import child_command
from .video_file import VideoFile

_HARMLESS = 1 << 20  # bytes that cannot hold units for seconds
_WINDOWS, _WINDOW = 32, 1024
_RATIO = 0.85  # a window is suspicious if it can be compressed to less
_MOST = 5  # windows that may be so in a usual file: its tables, a stretch in which nothing moves
_MEMORY = 1 << 30  # bytes of address space for the child, beside the file
_OUT_OF_TIME = {getattr(signal, name, None) for name in ("SIGXCPU", "SIGKILL")}
_OPEN = """
import io, json, resource, sys
options, path, seconds, memory = json.loads(sys.argv[1])
data = sys.stdin.buffer.read()
import av
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
try:
    av.open(path or io.BytesIO(data), options=options, metadata_errors="replace").close()
except Exception:
    pass
"""


def check_opening(file: VideoFile, options: dict[str, str]) -> None:
    """Refuse a clip that FFmpeg does not open in time; raises a `MediaLimitError`. Usual clips cost milliseconds."""
    if not _is_suspicious(file):
        return
    size = len(file.data) if file.data is not None else 0
    seconds = max(0.0, file.deadline - time.monotonic())
    path = None if file.path is None else f"file:{os.path.abspath(file.path)}"
    request = json.dumps([options, path, int(seconds) + 1, _MEMORY + 2 * size])
    try:
        command = child_command(_OPEN, request)
        child = subprocess.run(command, input=file.data or b"", capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise file.limit("takes too many seconds to open", "max_decode_seconds") from None
    except OSError:
        raise file.broken("looks as if opening it took long, and no process can be started to try") from None
    if -child.returncode in _OUT_OF_TIME:
        raise file.limit("takes too many seconds to open", "max_decode_seconds")
    if child.returncode < 0:  # ended by another signal: the decoder broke
        raise file.broken("cannot be opened: the process that tried ended without an answer")


def _is_suspicious(file: VideoFile) -> bool:
    """Whether much of a file can be compressed."""
    with file.open() as data:
        size = data.seek(0, os.SEEK_END)
        if size < _HARMLESS:
            return False
        found = 0
        for number in range(_WINDOWS):
            data.seek((size - _WINDOW) * number // (_WINDOWS - 1))
            found += len(zlib.compress(data.read(_WINDOW), 1)) < _RATIO * _WINDOW
    return found > _MOST
