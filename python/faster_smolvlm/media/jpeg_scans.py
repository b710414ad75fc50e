"""The scans of a JPEG, counted from its markers: each may make the decoder go over all coefficients again."""

from __future__ import annotations

import re
from typing import Protocol

_PIECE = 1 << 20
# Inside entropy-coded data a byte 255 is followed by 0, by a restart marker or by another 255.
_NEXT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}


class Seekable(Protocol):
    """What is used of a binary file."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a position."""

    def tell(self) -> int:
        """Return the position."""


def count_scans(file: Seekable, limit: int) -> int:
    """Return how many scans the JPEG that begins at the position of `file` has, counting to `limit` + 1 at most.

    A baseline picture whose first scan holds all components has one: the decoder looks at no other, and nothing behind
    it is read. Segments are stepped over by their lengths, so that the scans of a thumbnail do not count.
    """
    if file.read(2) != b"\xff\xd8":
        return 0
    scans, components, progressive = 0, 0, False
    while scans <= limit:
        marker, head = _next_segment(file)
        if marker in _FRAMES and len(head) > 5:
            components, progressive = head[5], marker in _PROGRESSIVE
        elif marker == 0xDA:
            scans += 1
            if (not progressive and head[:1] == bytes([components])) or not _skip_entropy(file):
                return scans
        elif marker == 0xD9:
            return scans
    return scans


def _next_segment(file: Seekable) -> tuple[int, bytes]:
    """Step over the next segment; returns its marker and its first bytes. The end of the file is an end marker."""
    byte = file.read(1)
    while byte:
        while byte and byte != b"\xff":
            byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if not byte or byte == b"\xd9":
            break
        if byte[0] > 1 and not 0xD0 <= byte[0] <= 0xD8:  # the others have no length
            length = int.from_bytes(file.read(2), "big") - 2
            head = file.read(min(6, max(0, length)))
            file.seek(max(0, length - 6), 1)
            return byte[0], head
        byte = file.read(1)
    return 0xD9, b""


def _skip_entropy(file: Seekable) -> bool:
    """Step over entropy-coded data to the marker behind it; returns whether there is one."""
    start, last = file.tell(), b""
    while piece := file.read(_PIECE):
        if match := _NEXT.search(last + piece):
            file.seek(start - len(last) + match.start())
            return True
        start, last = start + len(piece), piece[-1:]
    return False
