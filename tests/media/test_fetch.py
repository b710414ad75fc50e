"""Fetching from servers that are slow, wordy or lie. Only the loopback interface is connected to."""

from __future__ import annotations

import gzip
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from typing import Any

import pytest
from faster_smolvlm.media import (
    MediaError,
    MediaFetchError,
    MediaPolicy,
    lookup,
    network,
)

from tests.helpers.raw_server import HEAD, OPEN, Answer, answer_with, body, drip, fetched, raw_server, request

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW: dict[str, Answer] = {
    "status line": drip(b"", HEAD),
    "headers": drip(HEAD, b"X-Word: slow\r\n"),
    "one header": drip(HEAD + b"X-Word: ", b"x"),
    "early hints": drip(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 0.002),
    "continue": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.002),
    "body": drip(HEAD + b"Content-Length: 10000\r\n\r\n", b"x"),
    "body without length": drip(HEAD + b"\r\n", b"x"),
    "chunks": drip(CHUNKED, b"1\r\nx\r\n"),
    "size of a chunk": drip(CHUNKED, b"0"),
    "extension of a chunk": drip(CHUNKED + b"1;", b"x"),
    "trailers": drip(CHUNKED + b"1\r\nx\r\n0\r\n", b"X-Word: slow\r\n"),
    "gzip": drip(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(os.urandom(5000))),
    "nothing": lambda connection: time.sleep(20),
}


@pytest.mark.parametrize("phase", SLOW)
def test_one_time_for_all(phase: str) -> None:
    with raw_server(SLOW[phase]) as server:
        start = time.monotonic()
        with pytest.raises(MediaFetchError, match=r"did not answer in time \(0.6 s to connect, 0.6 s in all\)"):
            fetched(f"http://{server}/a.png", OPEN)
        assert time.monotonic() - start < 3


def test_one_time_for_all_redirects() -> None:
    def answer(connection: socket.socket) -> None:
        request(connection)
        time.sleep(0.25)
        connection.sendall(body(b"", b"Location: /again", status=b"302 Found"))

    with raw_server(answer) as server:
        start = time.monotonic()
        with pytest.raises(MediaFetchError, match="in time"):
            fetched(f"http://{server}/a.png", OPEN)
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("words", [b"", b"\x16\x03\x03\x40\x00"])
def test_slow_handshakes(words: bytes) -> None:
    """Of TLS: a server that says nothing, and one that announces a record and then sends its bytes one by one."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(words)
        for _ in range(400):
            time.sleep(0.05)
            connection.sendall(words[:1])

    with raw_server(answer) as server:
        start = time.monotonic()
        with pytest.raises(MediaFetchError, match="in time"):
            fetched(f"https://{server}/a.png", OPEN)
        assert time.monotonic() - start < 3


def test_slow_names(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **keywords: release.wait(30) and [])
    monkeypatch.setattr(lookup._slots, "free", threading.BoundedSemaphore(2))
    before = threading.active_count()
    try:
        for _ in range(4):  # more than there may be threads
            start = time.monotonic()
            with pytest.raises(MediaFetchError, match="in time"):
                fetched("http://slow.example/a.png", MediaPolicy(total_timeout=0.3))
            assert time.monotonic() - start < 3
        assert threading.active_count() - before <= 2
    finally:
        release.set()


def test_a_server_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is larger than what the system keeps for a reader that never reads."""
    real = network.httpcore2.SyncBackend.connect_tcp

    def narrow(*arguments: Any, **keywords: Any) -> Any:
        stream = real(*arguments, **keywords)
        stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        return stream

    monkeypatch.setattr(network.httpcore2.SyncBackend, "connect_tcp", narrow)

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        time.sleep(20)

    with raw_server(answer) as server:
        start = time.monotonic()
        with pytest.raises(MediaFetchError, match="in time"):
            fetched(f"http://{server}/{'x' * 60_000}", OPEN)
        assert time.monotonic() - start < 3


def test_an_interrupt_ends_at_once() -> None:
    """In a lookup that hangs, and in a body that drips."""
    code = """
        import socket, sys, threading, time
        from faster_smolvlm.media import read_source, MediaPolicy
        import faster_smolvlm.media.fetch
        hang = threading.Event()
        if sys.argv[1] == "name":
            socket.getaddrinfo = lambda *arguments, **keywords: hang.wait(60)
        print("ready", flush=True)
        try:
            read_source(sys.argv[2], MediaPolicy())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    with raw_server(drip(HEAD + b"\r\n", b"x")) as server:
        for where, url in (("name", "http://slow.example/a.png"), ("body", f"http://{server}/a.png")):
            arguments = [sys.executable, "-c", textwrap.dedent(code), where, url]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
                time.sleep(0.4)
                start = time.monotonic()
                child.send_signal(signal.SIGINT)
                assert child.stdout.readline() == "interrupted\n"
                assert child.wait(5) == 0
                assert time.monotonic() - start < 3


BOMBS: dict[str, tuple[bytes, str]] = {
    "one header": (HEAD + b"X: " + b"x" * (1 << 20), "could not be fetched"),
    "many headers": (HEAD + b"".join(b"X%d: y\r\n" % number for number in range(50_000)), "could not be fetched"),
    "early hints": (b"HTTP/1.1 103 E\r\n\r\n" * 200_000, "could not be fetched"),
    "size of a chunk": (CHUNKED + b"0" * (1 << 20), "could not be fetched"),
    "extension of a chunk": (CHUNKED + b"1;" + b"x" * (1 << 20), "could not be fetched"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 200_000, "could not be fetched"),
    "tiny chunks": (CHUNKED + b"1\r\nx\r\n" * 900_000 + b"0\r\n\r\n", "pieces"),
    "location": (body(b"", b"Location: /" + b"x" * 70_000, status=b"302 Found"), "longer than 65536"),
    "gzip": (body(gzip.compress(bytes(30 << 20)), b"Content-Encoding: gzip"), "max_bytes"),
    "gzip in gzip": (
        body(gzip.compress(gzip.compress(bytes(1 << 26))), b"Content-Encoding: gzip, gzip"),
        "is packed as",
    ),
    "brotli": (body(b"\x1b" * 99, b"Content-Encoding: br"), "is packed as 'br'"),
    "not gzip": (body(b"x" * 99, b"Content-Encoding: gzip"), "not packed as it says"),
    "half of gzip": (body(gzip.compress(os.urandom(999))[:500], b"Content-Encoding: gzip"), "cut off"),
    "shorter than said": (HEAD + b"Content-Length: 100\r\nConnection: close\r\n\r\nxx", "could not be fetched"),
    "length of many digits": (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", "could not be fetched|max_bytes"),
    "negative length": (HEAD + b"Content-Length: -5\r\n\r\nxx", "could not be fetched"),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "could not be fetched"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", "could not be fetched"),
    "switching": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "could not be fetched"),
    "choices": (body(b"x", status=b"300 Multiple Choices"), "status 300"),
    "empty": (body(b""), "the source is empty"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_servers_may_send(name: str) -> None:
    sent, message = BOMBS[name]

    def answer(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        select.select([connection], [], [], 5)

    policy = MediaPolicy(max_bytes=20 << 20, total_timeout=20)
    with raw_server(answer) as server:
        start = time.thread_time()
        with pytest.raises(MediaError, match=message) as error:
            fetched(f"http://{server}/a.png?secret", policy)
        assert time.thread_time() - start < 2
    assert len(str(error.value)) < 400
    assert "secret" not in str(error.value)


def test_packed_bodies() -> None:
    data = os.urandom(100_000) + bytes(900_000)
    raw = zlib.compressobj(wbits=-15)
    packed = {b"gzip": gzip.compress(data), b"x-gzip": gzip.compress(data), b"deflate": zlib.compress(data)}
    for encoding, sent in [*packed.items(), (b"deflate", raw.compress(data) + raw.flush()), (b"identity", data)]:
        with raw_server(answer_with(body(sent, b"Content-Encoding: " + encoding))) as server:
            assert fetched(f"http://{server}/a.png") == data
