"""The same picture, or the same clip, in every form that a caller may pass."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from PIL import Image

Make = Callable[[Path], Any]


class Pipe:
    """A file object that has nothing but `read`, and gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1000))


def _data_uri(path: Path) -> str:
    kind = {".png": "image/png", ".mp4": "video/mp4"}[path.suffix]
    return f"data:{kind};base64,{_base64(path)}"


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _zip_member(path: Path) -> Any:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(path, "inside")
    return zipfile.ZipFile(buffer).open("inside")


TEXT: dict[str, Make] = {"str": str, "data URI": _data_uri, "base64": _base64}
"""What a command line can hold, and Transformers reads too."""

ENCODED: dict[str, Make] = {
    **TEXT,
    "PathLike": Path,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "open file": lambda path: path.open("rb"),
    "zip member": _zip_member,
    "pipe": lambda path: Pipe(path.read_bytes()),
    "row of a data set": lambda path: {"bytes": path.read_bytes(), "path": "name of another machine"},
    "row with a path": lambda path: {"bytes": None, "path": str(path)},
}

PICTURES: dict[str, Callable[[np.ndarray], Any]] = {
    "PIL": Image.fromarray,
    "array": np.array,
    "tensor": torch.tensor,
}

CLIPS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": np.array,
    "tensor": torch.tensor,
    "list of PIL": lambda frames: [Image.fromarray(frame) for frame in frames],
    "list of arrays": list,
    "list of tensors": lambda frames: list(torch.tensor(frames)),
}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Write nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
