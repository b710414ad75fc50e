"""Decoding one picture in a process of its own, which can be ended: for decoders that stay in one call for long."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING

from . import errors
from .child import child_command
from .limits import out_of_time
from .policy import MediaPolicy
from .source import Source

if TYPE_CHECKING:
    import PIL.Image

_START = "from faster_smolvlm.media.apart_child import main; main()"
# What the child has to know of the policy.
_FIELDS = ("max_bytes", "max_pixels", "max_side", "max_scans", "max_decode_bytes", "decode_timeout", "reduced_edge")
_LONGEST = 1e6  # seconds, which timers can count
_KNOWN = {name for name in vars(errors) if name.startswith("Media")}


def decode_apart(
    source: Source, policy: MediaPolicy, deadline: float, reading: tuple[bool, str] = (True, "")
) -> PIL.Image.Image:
    """Decode as `decode_image` does, in a child process that is ended at `deadline` (`time.monotonic` seconds).

    The child starts a fresh interpreter, so that threads of this process do not matter. It ends with this process.
    Raises a `MediaError`; one that names the child if it cannot be started or breaks.
    """
    seconds = min(_LONGEST, max(0.0, deadline - time.monotonic()))
    with _start(source.label) as child:
        timer = threading.Timer(seconds, child.kill)
        timer.daemon = True
        timer.start()
        try:
            return _ask(child, source, policy, seconds, reading)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, errors.MediaError):
                raise
            if time.monotonic() >= deadline:
                raise out_of_time(source.label, policy) from None
            raise errors.MediaDecodeError(
                f"{source.label}: the process that decodes it ended without an answer, for want of memory or by a "
                "broken file"
            ) from None
        finally:
            timer.cancel()
            child.kill()


def _start(label: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            child_command(_START), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        raise errors.MediaDecodeError(
            f"{label} is so large that its decoder needs a process of its own, and none can be started "
            "(sys.executable has to be a Python interpreter)"
        ) from None


def _ask(
    child: subprocess.Popen[bytes], source: Source, policy: MediaPolicy, seconds: float, reading: tuple[bool, str]
) -> PIL.Image.Image:
    from PIL import Image

    to_child, from_child = child.stdin, child.stdout
    if to_child is None or from_child is None:
        raise OSError
    fields = {name: getattr(policy, name) for name in (*_FIELDS, "formats")}
    request = {"label": source.label, "path": source.path, "policy": fields, "seconds": seconds, "reading": reading}
    to_child.write(json.dumps(request).encode() + b"\n")
    to_child.write(source.data or b"")
    to_child.close()
    answer = json.loads(from_child.readline(1 << 16))
    if answer.get("error") in _KNOWN:
        raise getattr(errors, answer["error"])(str(answer["message"]))
    width, height = answer["size"]
    image = Image.new("RGB", (width, height))
    step = max(1, (1 << 20) // width)
    for top in range(0, height, step):
        rows = min(step, height - top)
        image.paste(Image.frombytes("RGB", (width, rows), _exactly(from_child, 3 * width * rows)), (0, top))
    for name, data in answer["info"].items():
        image.info[name] = bytes.fromhex(data)
    return image


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise OSError
    return data
