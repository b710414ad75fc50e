"""A server on the loopback interface that sends just what a test says, byte by byte if need be."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from faster_smolvlm.media import MediaPolicy, read_source

OPEN = MediaPolicy(total_timeout=0.6, connect_timeout=0.6)
"""A policy that waits little."""

Answer = Callable[[socket.socket], None]


@contextmanager
def raw_server(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Call `answer` with each connection in a thread of its own; yields the address as ``127.0.0.1:port``.

    With a `context` the connection speaks TLS.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            try:
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                with connection:
                    answer(connection)
            except OSError:
                pass  # the client went away

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def request(connection: socket.socket) -> bytes:
    """Read the head of one request."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("closed")
        head += piece
    return head


def answer_with(*pieces: bytes) -> Answer:
    """Answer each request of a connection with the same bytes."""

    def answer(connection: socket.socket) -> None:
        while True:
            request(connection)
            connection.sendall(b"".join(pieces))

    return answer


def drip(first: bytes, repeated: bytes, every: float = 0.05) -> Answer:
    """Answer with `first` and then, for ever, with the bytes of `repeated` one at a time."""

    def answer(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(first)
        while True:
            for byte in repeated:
                connection.sendall(bytes([byte]))
                time.sleep(every)

    return answer


def body(data: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with a body of known length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(data), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


HEAD = b"HTTP/1.1 200 OK\r\n"
EVERY_PORT = range(1, 65536)


def fetched(url: str, policy: MediaPolicy | None = None) -> bytes:
    """Return what is found at a URL."""
    data = read_source(url, policy or MediaPolicy(total_timeout=5)).data
    assert data is not None
    return data
