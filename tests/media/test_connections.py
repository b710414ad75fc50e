"""The connections of fetches: shared, checked, kept apart as policies need it. Nothing beyond the loopback is asked."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from faster_smolvlm.media import (
    MediaError,
    MediaFetchError,
    MediaLimitError,
    MediaPolicy,
    MediaRefusedError,
    transport,
)

from tests.helpers.raw_server import EVERY_PORT, HEAD, OPEN, answer_with, body, drip, fetched, raw_server, request


def test_connections_are_used_again() -> None:
    seen: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        seen.append(connection)
        answer_with(body(b"picture"))(connection)

    with raw_server(answer) as server:
        for _ in range(5):
            assert fetched(f"http://{server}/a.png") == b"picture"
        assert len(seen) == 1
        threads = [threading.Thread(target=fetched, args=(f"http://{server}/a.png",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) <= 8


def test_a_kept_connection_that_was_closed() -> None:
    def answer(connection: socket.socket) -> None:
        """Answers once, and reads the next request before it hangs up."""
        request(connection)
        connection.sendall(body(b"picture"))
        request(connection)

    with raw_server(answer) as server:
        for _ in range(4):
            assert fetched(f"http://{server}/a.png") == b"picture"


def test_a_policy_does_not_use_the_connections_of_another() -> None:
    with raw_server(answer_with(body(b"picture"))) as server:
        assert fetched(f"http://{server}/a.png") == b"picture"
        policy = MediaPolicy(allow_private_addresses=False, allowed_ports=EVERY_PORT)
        with pytest.raises(MediaRefusedError, match="not public"):
            fetched(f"http://{server}/a.png", policy)
        assert fetched(f"http://{server}/a.png") == b"picture"


def test_cookies_are_not_kept() -> None:
    heads: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while True:
            heads.append(request(connection))
            connection.sendall(body(b"picture", b"Set-Cookie: who=me"))

    with raw_server(answer) as server:
        fetched(f"http://user:word@{server}/a.png")
        fetched(f"http://{server}/a.png")
    assert b"Authorization: Basic dXNlcjp3b3Jk" in heads[0]
    for said in (b"cookie", b"authorization"):
        assert said not in heads[1].lower()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_its_own() -> None:
    ports: list[int] = []

    def answer(connection: socket.socket) -> None:
        ports.append(connection.getpeername()[1])
        answer_with(body(b"picture"))(connection)

    code = """
        import os, sys
        from faster_smolvlm.media import read_source, MediaPolicy
        assert read_source(sys.argv[1], MediaPolicy()).data == b"picture"
        child = os.fork()
        assert read_source(sys.argv[1], MediaPolicy()).data == b"picture"
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert read_source(sys.argv[1], MediaPolicy()).data == b"picture"
    """
    with raw_server(answer) as server:
        subprocess.run([sys.executable, "-c", textwrap.dedent(code), f"http://{server}/a"], check=True, timeout=30)
    assert len(ports) == 2


def test_every_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(answer_with(body(b"picture"))) as server:
        port = int(server.rpartition(":")[2])

        def resolve(*arguments: Any, **keywords: Any) -> list[Any]:
            return [(0, 0, 0, "", (address, port)) for address in ("::1", "127.0.0.2", "127.0.0.1")]

        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *more, **named: resolve() if host == "pictures.example" else real(host, *more, **named),
        )
        assert fetched(f"http://pictures.example:{port}/a.png") == b"picture"


def test_all_addresses_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*arguments: Any, **keywords: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, 80)) for address in ("8.8.8.8", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(MediaRefusedError, match="not public"):
        fetched("http://pictures.example/a.png", MediaPolicy(allow_private_addresses=False))


def test_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        heads.append(request(connection))
        connection.sendall(body(b"picture"))

    with raw_server(answer) as server:
        monkeypatch.setenv("http_proxy", f"http://user:word@{server}")
        assert fetched("http://pictures.example/a.png") == b"picture"
        assert heads[0].startswith(b"GET http://pictures.example/a.png HTTP/1.1")
        assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in heads[0]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert fetched(f"http://{server}/a.png") == b"picture"
        assert heads[1].startswith(b"GET /a.png HTTP/1.1")
        strict = MediaPolicy(allow_private_addresses=False)
        with pytest.raises(MediaError, match=r"not known|not public"):
            fetched("http://localhost/a.png", strict)
    assert len(heads) == 2
    monkeypatch.delenv("no_proxy")
    with raw_server(drip(b"", b"HTTP/1.1 103 E\r\n\r\n")) as server:
        monkeypatch.setenv("https_proxy", server)
        start = time.monotonic()
        with pytest.raises(MediaFetchError, match="in time"):
            fetched("https://pictures.example/a.png", OPEN)
        assert time.monotonic() - start < 3


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The context of a server whose certificate, for ``localhost``, this process trusts."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    arguments = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    arguments += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*arguments, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl to make a certificate with")
    monkeypatch.setattr(transport, "_tls", lambda: ssl.create_default_context(cafile=str(certificate)))
    transport.shared_transport.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def relay(connection: socket.socket) -> None:
    """A proxy: connects to where CONNECT says, and hands bytes on in both directions."""
    head = request(connection)
    host, _, port = head.split()[1].decode().partition(":")
    with socket.create_connection((host, int(port))) as other:
        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        ways = {connection: other, other: connection}
        while True:
            for ready in select.select(list(ways), [], [])[0]:
                data = ready.recv(65536)
                if not data:
                    return
                ways[ready].sendall(data)


def test_tls_through_a_proxy(certified: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(3 << 20)
    with raw_server(answer_with(body(data)), certified) as server, raw_server(relay) as proxy:
        url = f"https://localhost:{server.rpartition(':')[2]}/a.png"
        monkeypatch.setenv("https_proxy", f"http://{proxy}")
        for _ in range(2):
            assert fetched(url) == data
    transport.shared_transport.cache_clear()


def test_tls(certified: ssl.SSLContext) -> None:
    data = os.urandom(3 << 20)
    try:
        with raw_server(answer_with(body(data)), certified) as server:
            port = server.rpartition(":")[2]
            for _ in range(2):
                assert fetched(f"HTTPS://localhost:{port}/a.png") == data
            with pytest.raises(MediaFetchError, match="could not be fetched"):  # the certificate is of another name
                fetched(f"https://127.0.0.1:{port}/a.png")
        with raw_server(drip(HEAD, b"X-Word: slow\r\n"), certified) as server:
            start = time.monotonic()
            with pytest.raises(MediaFetchError, match="in time"):
                fetched(f"https://localhost:{server.rpartition(':')[2]}/a.png", OPEN)
            assert time.monotonic() - start < 3
    finally:
        transport.shared_transport.cache_clear()


def test_redirects_that_lead_elsewhere() -> None:
    secret = "iVBORw0KGgo" * 9
    for location in ("file:///etc/passwd", f"data:image/png;base64,{secret}", "ftp://example.com/a", "gopher://x"):
        sent = body(b"", b"Location: " + location.encode(), status=b"302 Found")
        with raw_server(answer_with(sent)) as server, pytest.raises(MediaRefusedError, match="only http") as error:
            fetched(f"http://{server}/a.png")
        assert secret[:11] not in str(error.value)
    sent = body(b"", b"Location: /a b?\xc3\xa9", status=b"301 Moved")
    with raw_server(answer_with(sent)) as server, pytest.raises(MediaLimitError, match="max_redirects"):
        fetched(f"http://{server}/a.png", MediaPolicy(max_redirects=0))
