"""The child process of `apart`: reads a request and a picture from its input, writes the decoded pixels."""

from __future__ import annotations

import json
import os
import signal
import sys

from .decode import Reading, decode_image
from .errors import MediaError
from .policy import MediaPolicy
from .source import Source

_KEPT = ("exif", "icc_profile", "xmp")
_SPARE = 512 << 20  # bytes of address space for the interpreter and its libraries
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main() -> None:
    """Decode one picture."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    request = json.loads(sys.stdin.buffer.readline())
    policy = MediaPolicy(**request["policy"])
    _bound(request["seconds"], policy.max_decode_bytes)
    path = request["path"]
    source = Source(request["label"], path, None if path else sys.stdin.buffer.read())
    try:
        image = decode_image(source, policy, apart=False, reading=Reading(*request["reading"]))
    except MediaError as error:
        answer.write(json.dumps({"error": type(error).__name__, "message": str(error)}).encode() + b"\n")
    else:
        info = {name: image.info[name].hex() for name in _KEPT if isinstance(image.info.get(name), bytes)}
        head = json.dumps({"size": image.size, "info": info if len(str(info)) < 1 << 15 else {}})
        answer.write(head.encode() + b"\n")
        step = max(1, (1 << 20) // image.width)
        for top in range(0, image.height, step):
            answer.write(image.crop((0, top, image.width, min(image.height, top + step))).tobytes())
    answer.flush()
    os._exit(0)


def _bound(seconds: float, memory: int) -> None:
    """Let the system end this process in time, and with its parent, even if a decoder never returns."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds + 0.5))
    if sys.platform == "linux":
        import ctypes
        import resource

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = memory + _SPARE
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most < 0 else min(wanted, most), most))
