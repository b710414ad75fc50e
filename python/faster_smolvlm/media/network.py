"""Connections whose every step ends by one time, and that lead to public addresses only where that is asked for.

The HTTP library hands the timeouts of a request down to its connections unread. Here they are times
(`time.monotonic`) by which a step must be over, the same for all steps, so that bytes which come slowly win nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import httpcore2

from .addresses import is_public
from .lookup import LookupTimeoutError, addresses_of

if TYPE_CHECKING:
    import ssl

HEAD_BYTES = 192 << 10
"""Bytes that a server may send before its answer begins: early hints, the status line, headers."""

_ADDRESSES = 8  # of one host that are tried
_LONGEST_WAIT = 1e6  # seconds; a socket takes no infinity


class AddressRefusedError(Exception):
    """A host with an address that is not public."""


class Connections(httpcore2.NetworkBackend):
    """Opens connections; with `public_only` to hosts all of whose addresses are public, at one that was checked."""

    def __init__(self, public_only: bool) -> None:
        self._public_only = public_only

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> Connection:
        """Connect to the first address that answers; raises AddressRefusedError and UnknownHostError too."""
        try:
            addresses = addresses_of(host, port, time.monotonic() + _left(timeout, httpcore2.ConnectTimeout))
        except LookupTimeoutError:
            raise httpcore2.ConnectTimeout from None
        if self._public_only and not all(map(is_public, addresses)):
            raise AddressRefusedError
        addresses = addresses[:_ADDRESSES]
        for number, address in enumerate(addresses):
            seconds = _left(timeout, httpcore2.ConnectTimeout) / (len(addresses) - number)
            try:
                stream = httpcore2.SyncBackend().connect_tcp(address, port, seconds, local_address, socket_options)
                return Connection(stream)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number + 1 == len(addresses):
                    raise
        raise httpcore2.ConnectError


class Connection(httpcore2.NetworkStream):
    """A connection that keeps to the time of its request and to a number of bytes for the answer."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._allowed = HEAD_BYTES

    def allow(self, size: int) -> None:
        """Let `size` bytes more come."""
        self._allowed += size

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes; raises a ReadError if more come than were allowed."""
        if self._allowed <= 0:
            raise httpcore2.ReadError("too many bytes for one answer")
        data = self._stream.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))
        self._allowed -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send a part of a request; the answer to it is counted anew."""
        self._allowed = HEAD_BYTES
        view = memoryview(buffer)
        while view:  # in small parts, for a reader that takes a byte now and then
            part, view = view[:4096], view[4096:]
            self._stream.write(bytes(part), _left(timeout, httpcore2.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Connection:
        """Shake hands; only inside the TLS of the caller's own proxy does each read of it get this time anew."""
        seconds = _left(timeout, httpcore2.ConnectTimeout)
        return Connection(self._stream.start_tls(ssl_context, server_hostname, seconds))

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()

    def get_extra_info(self, info: str) -> object:
        """Return what the library knows of the connection."""
        return self._stream.get_extra_info(info)


def _left(end: float | None, error: type[httpcore2.TimeoutException]) -> float:
    seconds = _LONGEST_WAIT if end is None else end - time.monotonic()
    if seconds <= 0:
        raise error
    return min(seconds, _LONGEST_WAIT)
