"""Calls wait until the key/value cache has the pages that they may fill; who came first goes first."""

from __future__ import annotations

import gc
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from ..fork_lock import ForkLock
from ..generation.cancelling import Cancellation, Turn
from ..integers import as_float
from ..quoting import shown
from .serial import ENGINE_ORDER, SerialModel

_LOOK_SECONDS = 1.0
"""After so long a call that waits looks by itself whether anything changed; it is woken before."""


class CacheFullError(RuntimeError):
    """The key/value cache has no memory for a call: it never has, or not within the call's `wait_seconds`."""


class Holder(Protocol):
    """An engine that fills pages."""

    def discard(self) -> None:
        """Close the sequences; in a forked child, where the thread that worked on them is gone."""


class Reservation:
    """`pages` that the call of an engine may fill; `turn` says which thread works on the call."""

    def __init__(self, holder: Holder, pages: int, turn: Turn) -> None:
        self.holder = weakref.ref(holder)
        self.pages = pages
        self.turn = turn
        self.is_granted = False
        self.changed = threading.Event()


class Admission:
    """Hands out the pages of one model's cache. What is kept for reuse does not count: it gives way to calls."""

    def __init__(self, rust: SerialModel) -> None:
        self._rust = rust
        self.page_size = rust.page_size
        self._lock = ForkLock(ENGINE_ORDER - 1)
        self._held: list[Reservation] = []
        self._waiting: list[Reservation] = []
        self._returned: deque[Reservation] = deque()
        self._settling = False
        self._collected = -math.inf
        self._process = os.getpid()

    def take(self, wanted: Reservation, cancellation: Cancellation, wait_seconds: float | None) -> None:
        """Wait until the pages are there, at most `wait_seconds` (None: as long as it takes).

        Raises CacheFullError after that time, or if the calls that hold the pages cannot end before this one begins;
        CancelledCall if the call is closed.
        """
        end = math.inf if wait_seconds is None else time.monotonic() + wait_seconds
        wanted.turn.thread = threading.get_ident()
        try:
            with self._lock:
                self._forget_lost_threads()
                self._waiting.append(wanted)
            self.settle()
            cancellation.wake = wanted.changed.set
            while not wanted.is_granted:
                cancellation.check()
                if self._is_stuck(wanted):
                    self._collect_dropped()
                    self._refuse_if_stuck(wanted)
                left = end - time.monotonic()
                if left <= 0:
                    raise self._full(wanted, f"waited {wait_seconds:g} s")
                if not wanted.changed.wait(min(left, _LOOK_SECONDS)):
                    self._collect_dropped()
                wanted.changed.clear()
        except BaseException:
            self.give_back(wanted)
            raise
        finally:
            cancellation.wake = None

    def extend(self, held: Reservation, pages: int) -> None:
        """Add pages, if any, to what a call holds. Raises CacheFullError if they are not there: it does not wait."""
        if pages <= 0:
            return
        with self._lock:
            if pages > self._free:
                raise self._full(held, "grew by a step without a reservation")
            held.pages += pages

    def give_back(self, held: Reservation) -> None:
        """Let others have the pages, or end the waiting for them; a second time changes nothing."""
        self._returned.append(held)
        self.settle()

    def settle(self) -> None:
        """Give pages to those who wait; called whenever there may be more of them."""
        with self._lock:
            if self._settling:  # this thread is inside, and a generator that it collects gives back: it looks again
                return
            self._settling = True
            try:
                while True:
                    while self._returned:
                        self._remove(self._returned.popleft())
                    granted = next(filter(self._may_begin, self._waiting), None)
                    if granted is not None:
                        self._waiting.remove(granted)
                        self._held.append(granted)
                        granted.is_granted = True
                        granted.changed.set()
                    elif not self._returned:
                        return
            finally:
                self._settling = False

    @property
    def pages(self) -> int:
        """All pages of the cache."""
        return self._rust.pages

    @property
    def _free(self) -> int:
        return self._rust.pages - sum(held.pages for held in self._held)

    def _may_begin(self, wanted: Reservation) -> bool:
        """Whether it is the first, or its thread has other calls open, which end only if this one goes on."""
        first = wanted is self._waiting[0]
        return (first or self._holds(wanted.turn.thread) > 0) and wanted.pages <= self._free

    def _holds(self, *threads: int) -> int:
        return sum(held.pages for held in self._held if held.turn.thread in threads)

    def _remove(self, reservation: Reservation) -> None:
        for reservations in (self._held, self._waiting):
            if reservation in reservations:
                reservations.remove(reservation)

    def _is_stuck(self, wanted: Reservation) -> bool:
        """Whether threads that wait hold too much for `wanted` ever to begin, its own among them."""
        with self._lock:
            if wanted.is_granted or not self._holds(wanted.turn.thread):
                return False
            stuck = self._holds(*{waiting.turn.thread for waiting in self._waiting})
            return wanted.pages > self._rust.pages - stuck

    def _refuse_if_stuck(self, wanted: Reservation) -> None:
        if self._is_stuck(wanted):
            own = self._holds(wanted.turn.thread) * self.page_size
            raise self._full(
                wanted,
                f"cannot wait, since its thread has open streams that hold {own}: read them to their end or close() "
                "them first",
            )

    def _collect_dropped(self) -> None:
        """Let dropped calls that refer to themselves give back their pages, once in `_LOOK_SECONDS`."""
        now = time.monotonic()
        if now - self._collected >= _LOOK_SECONDS:
            self._collected = now
            gc.collect()

    def _full(self, wanted: Reservation, what: str) -> CacheFullError:
        size = self.page_size
        return CacheFullError(
            f"The key/value cache holds {self._rust.pages * size} positions, of which {self._free * size} are free; "
            f"this call may take {wanted.pages * size} and {what}. Lower max_new_tokens, give more wait_seconds (None: "
            "no limit), or load with a larger cache_positions."
        )

    def _forget_lost_threads(self) -> None:
        """In a forked child: end what other threads of the parent were at. Calls between two steps can go on."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._waiting.clear()
        lost = [held for held in self._held if held.turn.is_taken and held.turn.thread != threading.get_ident()]
        for held in lost:
            self._held.remove(held)
            holder = held.holder()
            if holder is not None:
                holder.discard()


class CallPages:
    """The pages of one call after prompts of `lengths` tokens, whose sequences have `limit` positions at most."""

    def __init__(self, admission: Admission, lengths: Sequence[int], limit: int, wait_seconds: object) -> None:
        self._admission = admission
        self._lengths = lengths
        self._limit = limit
        self._wait_seconds = wait_of(wait_seconds)
        self._reservation: Reservation | None = None
        self.are_planned = False
        """Whether they suffice for the longest answers."""

    @property
    def are_taken(self) -> bool:
        """Whether the call has asked for pages."""
        return self._reservation is not None

    def check(self, copies: int, most: int) -> int:
        """Return the pages for `copies` of each prompt with `most` more positions; refuse what can never be there."""
        size, pages = self._admission.page_size, self._admission.pages
        needed = copies * sum(pages_of(min(length + most, self._limit), size) for length in self._lengths)
        if needed > pages:
            answers = f" and {copies} answers to each, of {most + 1} tokens at most," if most or copies > 1 else ""
            raise CacheFullError(
                f"The prompts{answers} take {needed * size} positions of the key/value cache, which holds "
                f"{pages * size}: ask about fewer at once, {'lower max_new_tokens, ' if most else ''}or load with a "
                "larger cache_positions."
            )
        return needed

    def take(
        self, holder: Holder, cancellation: Cancellation, turn: Turn | None = None, copies: int = 1, most: int = 0
    ) -> None:
        """Wait for the pages, see `check`. A loop that says its `turn` says how long the answers may become, too."""
        self._reservation = Reservation(holder, self.check(copies, most), turn or Turn())
        self.are_planned = turn is not None
        self._admission.take(self._reservation, cancellation, self._wait_seconds)

    def take_more(self, lengths: list[int], rows: Sequence[int], more: Sequence[int]) -> None:
        """Take pages for rows of `lengths` that become longer. Raises CacheFullError if there are none free."""
        for row, count in zip(rows, more, strict=True):
            lengths[row] += count
        if self._reservation is not None:
            pages = sum(pages_of(length, self._admission.page_size) for length in lengths)
            self._admission.extend(self._reservation, pages - self._reservation.pages)

    def give_back(self) -> None:
        """Let others have the pages."""
        if self._reservation is not None:
            self._admission.give_back(self._reservation)


def most_after(max_new_tokens: int, drafted: int) -> int:
    """Return how many positions may follow a prompt: the last token needs none, and draft tokens have some."""
    return max(max_new_tokens - 1, 0) + drafted


def pages_of(positions: int, page_size: int) -> int:
    """Return how many pages hold so many positions."""
    return -(-positions // page_size)


def wait_of(seconds: object) -> float | None:
    """Return `wait_seconds` as a number, None for no limit; ValueError for anything else."""
    found = None if seconds is None else as_float(seconds)
    if seconds is not None and (found is None or not found >= 0):
        raise ValueError(f"wait_seconds must be a number of at least 0, or None for no limit, got {shown(seconds)}")
    return found
