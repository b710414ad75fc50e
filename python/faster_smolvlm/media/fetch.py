"""Fetching over http(s) within limits: bytes, time, redirects, domains, ports and addresses."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping

import httpcore2
import httpx2

from ..quoting import shown
from .body import read_body
from .errors import MediaError, MediaFetchError, MediaLimitError, MediaRefusedError
from .lookup import UnknownHostError
from .network import AddressRefusedError
from .policy import MediaPolicy
from .transport import shared_transport
from .urls import InvalidURLError, host_name, joined, parse_url, scheme_of

_PUBLIC_PORTS = (80, 443)
_HEADERS = {"User-Agent": "faster-smolvlm", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}


def fetch(url: str, label: str, policy: MediaPolicy) -> bytes:
    """Return the body of `url`, which messages call `label`.

    Every redirect passes the same checks as the first request. Raises MediaRefusedError, MediaLimitError or
    MediaFetchError.
    """
    if not policy.allow_urls:
        raise MediaRefusedError(f"{label}: URLs are not allowed; set MediaPolicy.allow_urls=True to fetch them")
    deadline = time.monotonic() + policy.total_timeout
    transport = shared_transport(not policy.allow_private_addresses)
    try:
        # A client of its own: cookies of one fetch are not shown to the next.
        with httpx2.Client(transport=transport, trust_env=False, headers=_HEADERS) as client:
            return _follow(client, url, label, deadline, policy)
    except MediaError:
        raise
    except InvalidURLError as error:
        raise MediaFetchError(f"{label} {error}") from None
    except UnknownHostError:
        raise MediaFetchError(f"{label}: its host is not known") from None
    except AddressRefusedError:
        raise MediaRefusedError(
            f"{label}: its host has an address that is not public; "
            "set MediaPolicy.allow_private_addresses=True to fetch from it"
        ) from None
    except httpcore2.TimeoutException:
        raise MediaFetchError(
            f"{label} did not answer in time ({policy.connect_timeout:g} s to connect, {policy.total_timeout:g} s in "
            "all); raise MediaPolicy.connect_timeout or MediaPolicy.total_timeout to wait longer"
        ) from None
    except Exception as error:  # what a library raises for what a server sends is not all listed
        raise MediaFetchError(f"{label} could not be fetched ({type(error).__name__})") from None


def _follow(client: httpx2.Client, url: str, label: str, deadline: float, policy: MediaPolicy) -> bytes:
    for _ in range(policy.max_redirects + 1):
        target = parse_url(url)
        _check_target(target, label, policy)
        response = _send(client, target, deadline, policy)
        try:
            if not response.has_redirect_location:
                return read_body(response, label, policy)
            url = joined(str(target), response.headers["location"])
        finally:
            response.close()
        if scheme_of(url) not in ("http", "https"):
            raise MediaRefusedError(f"{label} leads to a URL of another kind; only http:// and https:// are fetched")
    raise MediaLimitError(
        f"{label} redirects more than {policy.max_redirects} times; raise MediaPolicy.max_redirects to allow it"
    )


def _check_target(url: httpx2.URL, label: str, policy: MediaPolicy) -> None:
    """Refuse hosts and ports that the policy does not allow; the address is checked when it is connected to."""
    host = url.raw_host.decode("ascii")
    if policy.allowed_domains is not None and not any(_inside(host, domain) for domain in policy.allowed_domains):
        raise MediaRefusedError(f"{label}: the domain {shown(host)} is not in MediaPolicy.allowed_domains")
    port = url.port or (443 if url.scheme == "https" else 80)
    ports = policy.allowed_ports
    if ports is None and not policy.allow_private_addresses:
        ports = _PUBLIC_PORTS
    if ports is not None and port not in ports:
        raise MediaRefusedError(f"{label}: the port {port} is not in MediaPolicy.allowed_ports")


def _inside(host: str, domain: str) -> bool:
    """Whether `domain` is the host, or a domain around it."""
    if ":" in domain:
        return ":" in host and ipaddress.IPv6Address(host) == ipaddress.IPv6Address(domain.strip("[]"))
    try:
        domain = host_name(domain.lstrip("."))
    except InvalidURLError:
        return False
    return host == domain or host.endswith(f".{domain}")


def _send(client: httpx2.Client, url: httpx2.URL, deadline: float, policy: MediaPolicy) -> httpx2.Response:
    """Send a request; again if it went over a kept connection, which the server may have closed meanwhile."""
    connected = False

    def trace(event: str, _: Mapping[str, object]) -> None:
        nonlocal connected
        connected = connected or event.endswith("connect_tcp.started")

    while True:
        connect = min(deadline, time.monotonic() + policy.connect_timeout)
        times = {"connect": connect, "read": deadline, "write": deadline}
        request = client.build_request("GET", url, extensions={"timeout": times, "trace": trace})
        try:
            return client.send(request, stream=True)
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError):
            if connected:
                raise
