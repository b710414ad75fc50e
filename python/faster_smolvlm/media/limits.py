"""The checks of sizes that every reader shares, and how messages call a source."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..quoting import quoted
from .errors import MediaLimitError
from .policy import MediaPolicy

if TYPE_CHECKING:
    from .kinds import AnyArray

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


def out_of_time(label: str, policy: MediaPolicy) -> MediaLimitError:
    """Return the error for a picture whose time to be decoded is over."""
    return MediaLimitError(
        f"{label} takes more than {policy.decode_timeout} seconds to decode; raise MediaPolicy.decode_timeout to "
        "allow it"
    )


def check_array(shape: tuple[int, ...], policy: MediaPolicy) -> None:
    """Refuse an array whose last three dimensions hold more pixels than allowed, whatever the layout."""
    sides = sorted(int(side) for side in shape[-3:])
    check_size(sides[-2], sides[-1], f"array of shape {tuple(shape)}", policy)


def check_clip(size: int, label: str, policy: MediaPolicy) -> None:
    """Refuse frames that hold more bytes than one clip may; raises MediaLimitError."""
    if size > policy.max_clip_bytes:
        raise MediaLimitError(
            f"{label} holds {size} bytes, allowed are {policy.max_clip_bytes}; raise MediaPolicy.max_clip_bytes "
            "to allow it"
        )


def check_decoded_clip(clip: AnyArray, policy: MediaPolicy) -> None:
    """Refuse an array or tensor of frames that are too large, or too many."""
    check_array(tuple(clip.shape), policy)
    size = math.prod(clip.shape) * clip.dtype.itemsize
    check_clip(size, f"a clip of shape {tuple(clip.shape)}", policy)


def url_label(url: str) -> str:
    """Return a URL without user, password and query, cut to a readable length."""
    if len(url) > _LONGEST_URL:  # what follows a cut may be the host, and what stands before it a password
        return f"a URL of {len(url)} characters"
    try:
        parts = urlsplit(url)
        return quoted(f"{parts.scheme}://{parts.hostname or ''}{parts.path}")
    except ValueError:
        return "a malformed URL"
