"""A file that a decoder reads until its time is over."""

from __future__ import annotations

import time
from typing import BinaryIO


class OutOfTimeError(BaseException):
    """The time for one picture is over. Not an `Exception`: Pillow's readers would take it for a broken file."""


class ClockedFile:
    """A binary file whose `read` raises `OutOfTimeError` after `deadline` (`time.monotonic` seconds).

    Pillow's readers come back to Python for each piece of data, so that a decoder is left between two pieces; there
    Ctrl-C arrives too. It has no `fileno`: decoders would read past the clock.
    """

    def __init__(self, raw: BinaryIO, deadline: float) -> None:
        self.raw = raw
        self.expired = False
        self._deadline = deadline
        self._read = raw.read
        self.seek = raw.seek
        self.tell = raw.tell
        self.close = raw.close
        self.flush = raw.flush

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, all with -1."""
        if time.monotonic() > self._deadline:
            self.check()
        return self._read(size)

    def readline(self, size: int = -1, /) -> bytes:
        """Return the next line."""
        self.check()
        return self.raw.readline(size)

    def check(self) -> None:
        """Raise `OutOfTimeError` if the time is over."""
        if time.monotonic() > self._deadline:
            self.expired = True
            raise OutOfTimeError
