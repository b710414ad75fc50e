"""From what a caller may write for a picture or a clip to a file or bytes within limits."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..quoting import quoted, shown
from .errors import MediaDecodeError, MediaNotFoundError, MediaRefusedError, MediaTypeError
from .kinds import SOURCES, BinaryFile, MediaSource, is_file, is_record
from .limits import check_bytes, url_label
from .policy import MediaPolicy

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_CHUNK = 1 << 20  # bytes of one read of a file object: memory follows what it holds, not what is allowed


@dataclass(frozen=True)
class Source:
    """Encoded media: the `path` of a local file or the `data` in memory, one of them, and how messages call it."""

    label: str
    path: str | None = None
    data: bytes | None = None


def read_source(source: MediaSource, policy: MediaPolicy) -> Source:
    """Turn what a caller may write for a picture or a clip into a `Source`; URLs are fetched.

    That is a path, http(s) URL, data URI, base64 string, bytes, a binary file or a row of a data set, a mapping whose
    `bytes` count, or if they are None the file or URL at its `path`.

    A file object is read from its beginning if it can seek, else from where it is. Raises a `MediaError` that says why
    if the source cannot be read or is not allowed.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        size = memoryview(source).nbytes
        check_bytes(size, f"{size} bytes", policy)
        return Source(f"{size} bytes", data=bytes(source))
    if isinstance(source, os.PathLike):
        return _path(os.fsdecode(source), policy)
    if is_record(source):
        return _record(source, policy)
    if is_file(source):
        return _file_object(source, policy)
    if not isinstance(source, str):
        raise MediaTypeError(f"expected a {SOURCES}, got {shown(source)}")
    if source.startswith(("http://", "https://")):
        from .fetch import fetch  # sockets only for those who need them

        label = url_label(source)
        return Source(label, data=fetch(source, label, policy))
    if source.startswith("data:"):
        return _data_uri(source, policy)
    if os.path.exists(source):
        return _path(source, policy)
    data = _bare_base64(source, policy)
    if data is None:
        raise MediaNotFoundError(
            f"Incorrect image source: {quoted(source)} is no existing file, no http:// or https:// URL, no data URI "
            "and no base64 string. Check the path."
        )
    return Source(f"base64 string of {len(source)} characters", data=data)


def _record(record: Mapping[str, object], policy: MediaPolicy) -> Source:
    """Read a row of a data set: its `bytes`, and if those are None the file or URL at its `path`."""
    inner = record.get("path") if record.get("bytes") is None else record["bytes"]
    if not isinstance(inner, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise MediaTypeError(
            f"a picture or clip with 'bytes' and 'path' needs bytes or a path, got bytes={shown(record.get('bytes'))}, "
            f"path={shown(record.get('path'))}"
        )
    return read_source(inner, policy)


def _path(path: str, policy: MediaPolicy) -> Source:
    label = quoted(path)
    if not policy.allow_files:
        raise MediaRefusedError(f"{label}: local files are not allowed; set MediaPolicy.allow_files=True to read them")
    if os.path.isdir(path):
        raise MediaNotFoundError(f"Incorrect image source: {label} is a directory; pass the path of a file.")
    if not os.path.isfile(path):
        raise MediaNotFoundError(f"Incorrect image source: there is no file {label}.")
    check_bytes(os.path.getsize(path), label, policy)
    return Source(label, path=path)


def _file_object(file: BinaryFile, policy: MediaPolicy) -> Source:
    label = "file object"
    try:
        data = _read_from_start(file, policy.max_bytes + 1)
    except MediaTypeError:
        raise
    except Exception:  # closed, write-only, a broken archive; what it says may hold paths
        raise MediaDecodeError(f"{label} cannot be read") from None
    check_bytes(len(data), label, policy)
    return Source(label, data=data)


def _read_from_start(file: BinaryFile, limit: int) -> bytes:
    """Return what a file object holds, at most about `limit` bytes of it."""
    seek = getattr(file, "seek", None)
    if seek is not None and getattr(file, "seekable", lambda: True)():  # a pipe is not
        seek(0)
    content = io.BytesIO()
    while content.tell() < limit:
        chunk: object = file.read(min(_CHUNK, limit - content.tell()))
        if isinstance(chunk, str):
            raise MediaTypeError("a picture or a clip is no text: open the file in binary mode ('rb')")
        if not isinstance(chunk, (bytes, bytearray, memoryview)) or not chunk:
            break
        content.write(chunk)
    return content.getvalue()


def _data_uri(uri: str, policy: MediaPolicy) -> Source:
    header, comma, payload = uri.partition(",")
    kind = header[len("data:") :].split(";")[0]
    label = f"data URI ({quoted(kind[:40])}, {len(payload)} characters)"
    data = _decode(payload, label, policy) if comma and header.endswith(";base64") else None
    if data is None:
        raise MediaNotFoundError(f"{label} is not of the form 'data:image/…;base64,…'")
    return Source(label, data=data)


def _bare_base64(text: str, policy: MediaPolicy) -> bytes | None:
    return _decode(text, f"base64 string of {len(text)} characters", policy) if text else None


def _decode(payload: str, label: str, policy: MediaPolicy) -> bytes | None:
    check_bytes(len(payload) * 3 // 4, label, policy)
    text = "".join(payload.split())
    if not _BASE64.fullmatch(text):
        return None
    text = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
