"""Ending a call from another thread, and one thread at a time in a call."""

from __future__ import annotations

import threading
from collections.abc import Callable


class CancelledCall(Exception):  # noqa: N818 (nothing went wrong, and the loop that runs the engine takes it)
    """Leaves an engine in the middle of its work because the call was closed."""


class Cancellation:
    """Whether a call is to end; `request` may come from any thread, and a second time."""

    def __init__(self) -> None:
        self.requested = False
        self.wake: Callable[[], object] | None = None
        """Called after a request: what rouses a thread that waits for memory."""

    def request(self) -> None:
        """Let the call end at its next `check`."""
        self.requested = True
        wake = self.wake
        if wake is not None:
            wake()

    def check(self) -> None:
        """Raise `CancelledCall` if the call is to end. Engines do so after each part of their work."""
        if self.requested:
            raise CancelledCall


class Turn:
    """The right to run a call, which one thread has at a time. Nobody waits for it, so a fork cannot block anyone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.thread = threading.get_ident()
        """The thread that had the turn last; before that, the one that made this."""

    def take(self) -> bool:
        """Take the turn; False if another has it."""
        taken = self._lock.acquire(blocking=False)
        if taken:
            self.thread = threading.get_ident()
        return taken

    @property
    def is_taken(self) -> bool:
        """Whether a thread has the turn."""
        return self._lock.locked()

    def give_back(self) -> None:
        """Let others have the turn."""
        self._lock.release()

    def __enter__(self) -> None:
        if not self.take():
            raise RuntimeError(
                "This answer is being made by another thread at this moment. Iterate over it in one thread at a time; "
                "close() may be called from any."
            )

    def __exit__(self, *exception: object) -> None:
        self.give_back()
