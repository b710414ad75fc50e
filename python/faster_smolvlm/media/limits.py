"""The checks of sizes that every reader shares, and how messages call a source."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..quoting import quoted
from .errors import MediaLimitError
from .policy import MediaPolicy

_LONGEST_URL = 65_536


def check_bytes(size: int, label: str, policy: MediaPolicy) -> None:
    """Refuse encoded media of more bytes than allowed; raises MediaLimitError."""
    if size > policy.max_bytes:
        raise MediaLimitError(
            f"{label} holds more than {policy.max_bytes} bytes; raise MediaPolicy.max_bytes to allow it"
        )


def check_size(height: int, width: int, label: str, policy: MediaPolicy) -> None:
    """Refuse a picture of more pixels, in all or on a side, than allowed; raises MediaLimitError."""
    if max(height, width) > policy.max_side:
        raise MediaLimitError(
            f"{label} is {width}×{height} pixels, a side may have {policy.max_side}; "
            "raise MediaPolicy.max_side to allow it"
        )
    if height * width > policy.max_pixels:
        raise MediaLimitError(
            f"{label} has {width}×{height} = {width * height} pixels, allowed are {policy.max_pixels}; "
            "raise MediaPolicy.max_pixels to allow it"
        )


def check_array(shape: tuple[int, ...], policy: MediaPolicy) -> None:
    """Refuse an array whose last three dimensions hold more pixels than allowed, whatever the layout."""
    sides = sorted(int(side) for side in shape[-3:])
    check_size(sides[-2], sides[-1], f"array of shape {tuple(shape)}", policy)


def url_label(url: str) -> str:
    """Return a URL without user, password and query, cut to a readable length."""
    if len(url) > _LONGEST_URL:  # what follows a cut may be the host, and what stands before it a password
        return f"a URL of {len(url)} characters"
    try:
        parts = urlsplit(url)
        return quoted(f"{parts.scheme}://{parts.hostname or ''}{parts.path}")
    except ValueError:
        return "a malformed URL"
