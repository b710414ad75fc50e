"""The file of a clip on its way to a decoder: what messages call it, its limits, and what can go wrong with it."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import BinaryIO

from .errors import MediaDecodeError, MediaLimitError, MediaRefusedError
from .files import open_file
from .kinds import MediaSource
from .policy import MediaPolicy
from .source import read_source


class BrokenStreamError(Exception):
    """The packets did not give the frames that the table promised."""


class StoppedError(Exception):
    """Another part of the same clip has failed, so that reading this one is of no use."""


class ShortStreamError(Exception):
    """Fewer frames decode than were expected."""

    def __init__(self, total: int) -> None:
        self.total = total


@dataclass(frozen=True)
class VideoFile:
    """A path or bytes, what messages call it, what it may be, and when (`time.monotonic`) its decoding must be over."""

    name: str
    path: str | None
    data: bytes | None
    policy: MediaPolicy
    deadline: float

    @classmethod
    def find(cls, source: MediaSource, policy: MediaPolicy) -> VideoFile:
        """Resolve a source; raises a `MediaError` if there is none or `policy` refuses it."""
        found = read_source(source, policy, "video")  # has clocks of its own
        deadline = time.monotonic() + policy.max_decode_seconds
        return cls(found.label, found.path, found.data, policy, deadline)

    def open(self) -> BinaryIO:
        """Open the file, or the bytes, for reading; raises a `MediaError` if that is not possible."""
        return io.BytesIO(self.data or b"") if self.path is None else open_file(self.path)

    def broken(self, problem: str) -> MediaDecodeError:
        """Return the error for a file that cannot be used."""
        return MediaDecodeError(f"{self.name} {problem}")

    def refused(self, problem: str) -> MediaRefusedError:
        """Return the error for a file that the policy does not allow."""
        return MediaRefusedError(f"{self.name} {problem}")

    def limit(self, problem: str, limit: str) -> MediaLimitError:
        """Return the error for a file above a limit of the policy."""
        return MediaLimitError(
            f"{self.name} {problem}, allowed are {getattr(self.policy, limit)}; raise MediaPolicy.{limit} to allow it"
        )
