"""Locks that are free in a forked child: a fork waits until no other thread holds one."""

from __future__ import annotations

import itertools
import os
import threading
import weakref

_numbers = itertools.count()
_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_forking = threading.local()


class ForkLock:
    """A lock for one thread at a time, which may take it again; `order` is larger for those taken inside of others.

    What it guards is never half changed in a forked child: the thread that forks takes all locks first, the outer ones
    before the inner ones, and gives them back in both processes. Hold it for one piece of work only, without calling
    what a caller handed in.
    """

    def __init__(self, order: int) -> None:
        self._lock = threading.RLock()
        self.rank = (order, next(_numbers))
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def _take_all() -> None:
    taken: list[ForkLock] = []
    _forking.locks = taken
    for lock in sorted(_locks, key=lambda lock: lock.rank):
        lock.__enter__()
        taken.append(lock)


def _give_back() -> None:
    for lock in reversed(_forking.locks):
        lock.__exit__()
    _forking.locks = []


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=_take_all, after_in_parent=_give_back, after_in_child=_give_back)
