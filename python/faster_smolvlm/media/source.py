"""From what a caller may write for a picture or a video to a file or bytes within limits."""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import MediaLimitError, MediaNotFoundError, MediaRefusedError, MediaTypeError
from .policy import MediaPolicy

_LABEL_LENGTH = 200
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")


@dataclass(frozen=True)
class Source:
    """Encoded media: a local file or bytes in memory, and how messages call it."""

    label: str
    path: str | None = None
    data: bytes | None = None


def read_source(source: str | os.PathLike[str] | bytes | bytearray | memoryview, policy: MediaPolicy) -> Source:
    """Turn a path, http(s) URL, data URI, base64 string or bytes into a `Source`; URLs are fetched.

    Raises a `MediaError` that says why where that is not possible or not allowed.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        check_bytes(len(source), f"{len(source)} bytes", policy)
        return Source(f"{len(source)} bytes", data=bytes(source))
    if isinstance(source, os.PathLike):
        return _file(os.fspath(source), policy)
    if not isinstance(source, str):
        raise MediaTypeError(f"expected a path, URL, data URI, base64 string or bytes, got {type(source)!r}")
    if source.startswith(("http://", "https://")):
        from .fetch import fetch

        label = url_label(source)
        return Source(label, data=fetch(source, label, policy))
    if source.startswith("data:"):
        return _data_uri(source, policy)
    if os.path.exists(source):
        return _file(source, policy)
    data = _bare_base64(source, policy)
    if data is None:
        raise MediaNotFoundError(
            f"Incorrect image source: {_short(source)} is no existing file, no http:// or https:// URL, no data URI "
            "and no base64 string. Check the path."
        )
    return Source(f"base64 string of {len(source)} characters", data=data)


def check_bytes(size: int, label: str, policy: MediaPolicy) -> None:
    """Refuse encoded media above the limit."""
    if size > policy.max_bytes:
        raise MediaLimitError(
            f"{label} holds more than {policy.max_bytes} bytes; raise MediaPolicy.max_bytes to allow it"
        )


def url_label(url: str) -> str:
    """A URL without user, password and query, cut to a readable length."""
    try:
        parts = urlsplit(url)
        return _short(f"{parts.scheme}://{parts.hostname or ''}{parts.path}")
    except ValueError:
        return "a malformed URL"


def _short(text: str) -> str:
    """Quote a text for a message; its control characters escaped, its length bounded."""
    return repr(text if len(text) <= _LABEL_LENGTH else text[:_LABEL_LENGTH] + "…")


def _file(path: str, policy: MediaPolicy) -> Source:
    label = _short(path)
    if not policy.allow_files:
        raise MediaRefusedError(f"{label}: local files are not allowed; set MediaPolicy.allow_files=True to read them")
    if os.path.isdir(path):
        raise MediaNotFoundError(f"Incorrect image source: {label} is a directory; pass the path of a file.")
    if not os.path.isfile(path):
        raise MediaNotFoundError(f"Incorrect image source: there is no file {label}.")
    check_bytes(os.path.getsize(path), label, policy)
    return Source(label, path=path)


def _data_uri(uri: str, policy: MediaPolicy) -> Source:
    header, comma, payload = uri.partition(",")
    kind = header[len("data:") :].split(";")[0]
    label = f"data URI ({_short(kind[:40])}, {len(payload)} characters)"
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
