"""The connections that all fetches of a process share: one TLS context, and pools that are safe to share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from ..fork_lock import ForkLock
from .network import Connections

if TYPE_CHECKING:
    import ssl

_KEPT_CONNECTIONS, _KEPT_SECONDS = 20, 5.0


class Transport(httpx2.BaseTransport):
    """Sends requests over pools that are never closed by a client.

    Connections that were opened to any address are not used where only public ones are allowed, nor are the proxies of
    the environment: through a proxy the address would be resolved elsewhere, after the check.
    """

    def __init__(self, public_only: bool) -> None:
        self._public_only = public_only
        self._process = os.getpid()
        self._lock = ForkLock(0)
        self._pools: dict[str | None, httpcore2.ConnectionPool] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; raises what `httpcore2` raises."""
        url = request.url
        response = self._pool(self._proxy(url)).handle_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(
            response.status, headers=response.headers, stream=_Stream(response), extensions=response.extensions
        )

    def _proxy(self, url: httpx2.URL) -> str | None:
        if self._public_only:
            return None
        proxies = getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(url.raw_host.decode("ascii")):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _pool(self, proxy: str | None) -> httpcore2.ConnectionPool:
        with self._lock:
            if self._process != os.getpid():
                # The connections are the parent's, and a thread of it may have held the locks of the pools.
                self._process, self._pools = os.getpid(), {}
            if proxy not in self._pools:
                self._pools[proxy] = _new_pool(proxy, Connections(self._public_only))
            return self._pools[proxy]


class _Stream(httpx2.SyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


def _new_pool(proxy: str | None, connections: Connections) -> httpcore2.ConnectionPool:
    if proxy is None:
        kind: Callable[..., httpcore2.ConnectionPool] = httpcore2.ConnectionPool
    else:
        of = httpx2.Proxy(proxy)
        url = httpcore2.URL(scheme=of.url.raw_scheme, host=of.url.raw_host, port=of.url.port, target=of.url.raw_path)
        socks = of.url.scheme.startswith("socks")
        kind = partial(httpcore2.SOCKSProxy if socks else httpcore2.HTTPProxy, proxy_url=url, proxy_auth=of.raw_auth)
    return kind(
        ssl_context=_tls(),
        network_backend=connections,
        max_connections=None,
        max_keepalive_connections=_KEPT_CONNECTIONS,
        keepalive_expiry=_KEPT_SECONDS,
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the context with the certificates of the system; reading them takes about 0.1 s."""
    return httpcore2.default_ssl_context()


@functools.cache
def shared_transport(public_only: bool) -> Transport:
    """Return the transport of this process."""
    return Transport(public_only)
