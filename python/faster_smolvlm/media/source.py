"""From what a caller may write for a picture or a clip to a file or bytes within limits."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ..quoting import quoted, shown
from .errors import MediaDecodeError, MediaNotFoundError, MediaRefusedError, MediaTypeError
from .files import check_file, open_file, read_pieces, read_sizeless, stat_of
from .inline import data_of_uri, decode_base64, is_data_uri
from .kinds import SOURCES, BinaryFile, MediaSource, is_file, is_record
from .limits import check_bytes, url_label
from .policy import MediaPolicy
from .urls import is_url


@dataclass(frozen=True)
class Source:
    """Encoded media: the `path` of a local file or the `data` in memory, one of them, and how messages call it."""

    label: str
    path: str | None = None
    data: bytes | None = None

    def open(self) -> BinaryIO:
        """Open it for reading; raises a `MediaError` if the file cannot be read any more."""
        return io.BytesIO(self.data or b"") if self.path is None else open_file(self.path)


def read_source(source: MediaSource, policy: MediaPolicy, kind: str = "image") -> Source:
    """Turn what a caller may write for a picture or a clip into a `Source`; URLs are fetched.

    That is a path, http(s) URL, data URI, base64 string, bytes, a binary file or a row of a data set, a mapping whose
    `bytes` count, or if they are None the file or URL at its `path`.

    A file object is read from its beginning if it can seek, else from where it is. `kind` is what the source should
    hold, for messages. Raises a `MediaError` that says why if the source cannot be read or is not allowed.
    """
    found = _read(source, policy, kind)
    if found.path is None and not found.data:
        raise MediaDecodeError(f"{found.label}: the source is empty, there are no bytes to decode")
    return found


def _read(source: MediaSource, policy: MediaPolicy, kind: str) -> Source:
    if isinstance(source, (bytes, bytearray, memoryview)):
        size = memoryview(source).nbytes
        check_bytes(size, f"{size} bytes", policy)
        return Source(f"{size} bytes", data=bytes(source))
    if isinstance(source, os.PathLike):
        return _path_object(source, policy, kind)
    if is_record(source):
        return _record(source, policy, kind)
    if is_file(source):
        return _file_object(source, policy)
    if not isinstance(source, str):
        raise MediaTypeError(f"expected a {SOURCES}, got {shown(source)}")
    if is_url(source):
        from .fetch import fetch  # sockets only for those who need them

        label = url_label(source)
        return Source(label, data=fetch(source, label, policy))
    if is_data_uri(source):
        label, data = data_of_uri(source, policy)
        return Source(label, data=data)
    return _path_or_base64(source, policy, kind)


def _path_or_base64(text: str, policy: MediaPolicy, kind: str) -> Source:
    # Where paths are not allowed the disk is not asked: the answer would tell which files there are.
    found = stat_of(text) if policy.allow_files and text else None
    if found is not None:
        return _path(text, found, policy, kind)
    label = f"base64 string of {len(text)} characters"
    data = decode_base64(text, label, policy) if text else None
    if data is not None:
        return Source(label, data=data)
    if not policy.allow_files:
        raise MediaRefusedError(
            f"Incorrect {kind} source: {quoted(text)} is no http:// or https:// URL, no data URI and no base64 string, "
            "and local files are not allowed; set MediaPolicy.allow_files=True to read them"
        )
    raise MediaNotFoundError(
        f"Incorrect {kind} source: {quoted(text)} is no existing file, no http:// or https:// URL, no data URI "
        "and no base64 string. Check the path."
    )


def _record(record: Mapping[str, object], policy: MediaPolicy, kind: str) -> Source:
    """Read a row of a data set: its `bytes`, and if those are None the file or URL at its `path`."""
    inner = record.get("path") if record.get("bytes") is None else record["bytes"]
    if not isinstance(inner, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise MediaTypeError(
            f"a picture or clip with 'bytes' and 'path' needs bytes or a path, got bytes={shown(record.get('bytes'))}, "
            f"path={shown(record.get('path'))}"
        )
    return _read(inner, policy, kind)


def _path_object(source: os.PathLike[str], policy: MediaPolicy, kind: str) -> Source:
    try:
        path = os.fsdecode(source)
    except Exception:  # of a class that is not from here
        raise MediaTypeError(f"a path of type {shown(type(source).__name__)} gives no path as text") from None
    if not policy.allow_files:
        raise MediaRefusedError(
            f"{quoted(path)}: local files are not allowed; set MediaPolicy.allow_files=True to read them"
        )
    return _path(path, stat_of(path), policy, kind)


def _path(path: str, found: os.stat_result | None, policy: MediaPolicy, kind: str) -> Source:
    check_file(path, found, policy, kind)
    if found is not None and found.st_size == 0:
        data = read_sizeless(path, policy.max_bytes + 1)
        check_bytes(len(data), quoted(path), policy)
        return Source(quoted(path), data=data)
    return Source(quoted(path), path=path)


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
    return read_pieces(file, limit)
