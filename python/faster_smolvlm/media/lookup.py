"""Looking up the addresses of a host by a given time."""

from __future__ import annotations

import ipaddress
import os
import queue
import socket
import threading
import time

_AT_ONCE = 64


class LookupTimeoutError(Exception):
    """No answer in time."""


class UnknownHostError(Exception):
    """A host that has no address."""


class _Slots:
    """How many lookups may still begin; a forked child has none of its parent's threads and counts anew."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.free = threading.BoundedSemaphore(_AT_ONCE)


_slots = _Slots()


def addresses_of(host: str, port: int, deadline: float) -> list[str]:
    """Return the addresses of a host, in the order in which the system would try them, without doubles.

    The system's lookup cannot be interrupted, so it runs in a daemon thread, at most 64 of them. Raises
    LookupTimeoutError after `deadline` (`time.monotonic`), and UnknownHostError.
    """
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    slots = _slots.free
    if not slots.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise LookupTimeoutError
    answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def look_up() -> None:
        found: list[str] = []
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError):
            pass  # not known: nothing found
        finally:
            slots.release()
            answers.put(found)

    try:
        threading.Thread(target=look_up, name="faster-smolvlm-lookup", daemon=True).start()
    except RuntimeError:  # no more threads
        slots.release()
        raise UnknownHostError from None
    try:
        found = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise LookupTimeoutError from None
    if not found:
        raise UnknownHostError
    return list(dict.fromkeys(found))
