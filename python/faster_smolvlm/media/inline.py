"""Media inside a text: data URIs (RFC 2397) and base64."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from ..quoting import quoted
from .errors import MediaLimitError, MediaNotFoundError
from .limits import check_bytes
from .policy import MediaPolicy

_DATA = re.compile(r"\s*data:", re.IGNORECASE)
_IS_BASE64 = re.compile(r"(.*);\s*base64\s*", re.IGNORECASE | re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_SHOWN = 40  # characters of the media type in messages
_LONGEST_HEADER = 4096

PEAK = 5
"""Bytes that reading base64 takes at its peak for each character, beside the text itself."""


def is_data_uri(text: str) -> bool:
    """Whether a text is meant as a data URI; its scheme may be in any case, with blanks before it."""
    return _DATA.match(text) is not None


def data_of_uri(uri: str, policy: MediaPolicy) -> tuple[str, bytes]:
    """Return what messages call a data URI, and its bytes: base64 text, or any text with %-escapes.

    Raises MediaNotFoundError if it is no data URI, and MediaLimitError.
    """
    start = uri.index(":") + 1
    comma = uri.find(",", start, start + _LONGEST_HEADER)
    header = uri[start : comma if comma >= 0 else start + _LONGEST_HEADER]
    label = f"data URI ({quoted(header.split(';')[0].strip()[:_SHOWN])}, {len(uri)} characters)"
    if comma < 0:
        raise MediaNotFoundError(f"{label} has no comma; it should be of the form 'data:image/…;base64,…'")
    if not _IS_BASE64.fullmatch(header):
        check_bytes(len(uri) - comma - 1 - 2 * uri.count("%", comma), label, policy)
        plain = unquote_to_bytes(uri[comma + 1 :].partition("#")[0].strip().encode("utf-8", "replace"))
        check_bytes(len(plain), label, policy)
        return label, plain
    payload = uri[comma + 1 :]
    if "%" in payload:
        payload = unquote_to_bytes(payload.encode("utf-8", "replace")).decode("latin-1")
    data = decode_base64(payload, label, policy)
    if data is None:
        raise MediaNotFoundError(f"{label} is not of the form 'data:image/…;base64,…': what follows is no base64")
    return label, data


def decode_base64(text: str, label: str, policy: MediaPolicy) -> bytes | None:
    """Return the bytes of a base64 text, of either alphabet, with or without padding and blanks; None if it is none."""
    check_bytes(len(text) * 3 // 4, label, policy)
    if len(text) * PEAK > policy.max_decode_bytes:
        raise MediaLimitError(
            f"{label} may take {len(text) * PEAK} bytes of memory to read, allowed are {policy.max_decode_bytes}; "
            "raise MediaPolicy.max_decode_bytes to allow it"
        )
    try:  # most texts are plain: one pass, no copy
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    text = "".join(text.split())
    if not _BASE64.fullmatch(text):
        return None
    text = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
