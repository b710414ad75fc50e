"""Fetching over http(s) within limits: bytes, time, redirects, domains and addresses."""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING

from .addresses import is_public
from .errors import MediaFetchError, MediaLimitError, MediaRefusedError
from .limits import check_bytes, url_label
from .policy import MediaPolicy

if TYPE_CHECKING:
    import httpx2


# URL parsers disagree on backslashes, blanks and control characters.
_AMBIGUOUS = re.compile(r"[\\\s\x00-\x20\x7f]")


_PUBLIC_PORTS = (80, 443)


def fetch(url: str, label: str, policy: MediaPolicy) -> bytes:
    """Return the body of `url`, which messages call `label`.

    Every redirect passes the same checks as the first request. Raises MediaRefusedError, MediaLimitError or
    MediaFetchError.
    """
    import httpx2

    deadline = time.monotonic() + policy.total_timeout
    timeout = httpx2.Timeout(policy.total_timeout, connect=policy.connect_timeout)
    # Through a proxy the address would be resolved elsewhere, after the check.
    with httpx2.Client(timeout=timeout, trust_env=policy.allow_private_addresses, follow_redirects=False) as client:
        for _ in range(policy.max_redirects + 1):
            try:
                if _AMBIGUOUS.search(url):
                    raise MediaFetchError(f"{label} is not a valid URL")
                request = _request(client, httpx2.URL(url), label, policy)
                response = client.send(request, stream=True)
                try:
                    if not response.has_redirect_location:
                        return _body(response, label, deadline, policy)
                    url = str(httpx2.URL(url).join(response.headers["location"]))
                finally:
                    response.close()
            except httpx2.InvalidURL:
                raise MediaFetchError(f"{label} is not a valid URL") from None
            except httpx2.TimeoutException:
                raise MediaFetchError(f"{label} did not answer in time{_time_limits(policy)}") from None
            except httpx2.HTTPError as error:
                raise MediaFetchError(f"{label} could not be fetched ({type(error).__name__})") from None
            if time.monotonic() > deadline:
                raise MediaFetchError(f"{label} did not answer in time{_time_limits(policy)}")
    raise MediaLimitError(
        f"{label} redirects more than {policy.max_redirects} times; raise MediaPolicy.max_redirects to allow it"
    )


def _request(client: httpx2.Client, url: httpx2.URL, label: str, policy: MediaPolicy) -> httpx2.Request:
    """Return a request that the policy allows; to the address that was checked, if private ones are refused."""
    if not policy.allow_urls:
        raise MediaRefusedError(f"{label}: URLs are not allowed; set MediaPolicy.allow_urls=True to fetch them")
    if url.scheme not in ("http", "https") or not url.host:
        raise MediaRefusedError(f"{label} leads to {url_label(str(url))}; only http:// and https:// are fetched")
    host = url.host.rstrip(".").lower()
    if policy.allowed_domains is not None and not any(
        host == domain.lower() or host.endswith(f".{domain.lower()}") for domain in policy.allowed_domains
    ):
        raise MediaRefusedError(f"{label}: the domain {host!r} is not in MediaPolicy.allowed_domains")
    port = url.port or (443 if url.scheme == "https" else 80)
    ports = _PUBLIC_PORTS if policy.allowed_ports is None else policy.allowed_ports
    if not (policy.allowed_ports is None and policy.allow_private_addresses) and port not in ports:
        raise MediaRefusedError(f"{label}: the port {port} is not in MediaPolicy.allowed_ports ")
    if policy.allow_private_addresses:
        return client.build_request("GET", url)
    address = _public_address(host, port, label)
    headers = {"Host": url.netloc.decode("ascii")}
    extensions = {"sni_hostname": host}
    return client.build_request("GET", url.copy_with(host=address), headers=headers, extensions=extensions)


def _public_address(host: str, port: int, label: str) -> str:
    """Return one address of the host; raises MediaRefusedError unless all of them are public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise MediaFetchError(f"{label}: the host {host!r} is not known") from None
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_public(address):
            raise MediaRefusedError(
                f"{label}: the host {host!r} has an address that is not public; "
                "set MediaPolicy.allow_private_addresses=True to fetch from it"
            )
    return addresses[0]


def _body(response: httpx2.Response, label: str, deadline: float, policy: MediaPolicy) -> bytes:
    if response.status_code >= 400:
        raise MediaFetchError(f"{label} answered with status {response.status_code}")
    declared = response.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit():
        check_bytes(int(declared), label, policy)
    body = bytearray()
    for chunk in response.iter_bytes(1 << 16):
        body += chunk
        check_bytes(len(body), label, policy)
        if time.monotonic() > deadline:
            raise MediaFetchError(f"{label} took too long{_time_limits(policy)}")
    return bytes(body)


def _time_limits(policy: MediaPolicy) -> str:
    return f" ({policy.connect_timeout} s to connect, {policy.total_timeout} s in all; see MediaPolicy)"
