"""The gate for pictures from outside: kinds of sources, limits, refusals, and messages that give nothing away."""

from __future__ import annotations

import ast
import base64
import inspect
import io
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm.media import (
    MediaDecodeError,
    MediaError,
    MediaFetchError,
    MediaLimitError,
    MediaNotFoundError,
    MediaPolicy,
    MediaRefusedError,
    MediaTypeError,
    load_image,
    network,
)
from PIL import Image

STRICT = MediaPolicy.strict()


def png(width: int = 8, height: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def test_kinds_of_sources(tmp_path: Path) -> None:
    data = png()
    (tmp_path / "a.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    sources: list[Any] = [str(tmp_path / "a.png"), tmp_path / "a.png", data, bytearray(data), memoryview(data), text]
    sources += [f"data:image/png;base64,{text}", text.rstrip("="), "\n".join(re.findall(".{1,60}", text))]
    for source in sources:
        image = load_image(source)
        assert image.mode == "RGB"
        assert image.size == (8, 6)
    for thing in (Image.new("L", (3, 3)), np.zeros((3, 3, 3), np.uint8)):
        assert load_image(thing) is thing


@pytest.mark.parametrize("source", [None, 5, object(), {"url": "x"}])
def test_other_objects(source: Any) -> None:
    with pytest.raises(MediaTypeError, match="only a single or a list of entries is supported") as error:
        load_image(source)
    assert isinstance(error.value, TypeError)
    assert not re.search(r"0x[0-9a-f]{6,}", str(error.value))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/file.png", "no existing file"),
        (Path("/no/such/file.png"), "no file"),
        ("", "no existing file"),
        ("nul\0byte", "no existing file"),
        ("x." * 5000, "…"),
        ("data:image/png;base64,@@@@", "not of the form"),
        ("data:image/png,abc", "not a picture"),
        ("data:image/png;base64", "no comma"),
    ],
)
def test_missing(source: Any, message: str) -> None:
    with pytest.raises(MediaError, match=message) as error:
        load_image(source)
    assert len(str(error.value)) < 500


def test_directories(tmp_path: Path) -> None:
    for source in (tmp_path, str(tmp_path)):
        with pytest.raises(MediaNotFoundError, match="is a directory"):
            load_image(source)


@pytest.mark.parametrize("row", [{"bytes": None, "path": None}, {"path": 5}, {"bytes": Image.new("L", (2, 2))}])
def test_rows_of_data_sets_without_a_source(row: dict[str, Any]) -> None:
    with pytest.raises(MediaTypeError, match=r"needs bytes or a path, got bytes=.*path=") as error:
        load_image(row)
    assert " at 0x" not in str(error.value)
    with pytest.raises(MediaRefusedError):
        load_image({"bytes": None, "path": "/etc/hostname"}, MediaPolicy.strict())


def test_payload_is_not_repeated() -> None:
    secret = base64.b64encode(b"this is a secret and no picture" * 9).decode()
    for source in (secret, f"data:image/png;base64,{secret}"):
        with pytest.raises(MediaDecodeError) as error:
            load_image(source)
        assert secret[:20] not in str(error.value)


def test_limits_from_the_header() -> None:
    with pytest.raises(MediaLimitError, match="max_pixels"):
        load_image(png(40, 30), MediaPolicy(max_pixels=1199))
    assert load_image(png(40, 30), MediaPolicy(max_pixels=1200)).size == (40, 30)
    with pytest.raises(MediaLimitError, match="max_side"):
        load_image(png(40, 30), MediaPolicy(max_side=39))
    with pytest.raises(MediaLimitError, match="max_bytes"):
        load_image(png(), MediaPolicy(max_bytes=20))
    with pytest.raises(MediaLimitError, match="max_pixels"):
        load_image(np.zeros((40, 40, 3), np.uint8), MediaPolicy(max_pixels=1000))
    with pytest.raises(MediaLimitError, match="max_side"):
        load_image(Image.new("1", (33000, 1)))


def test_a_bomb_costs_nothing() -> None:
    header = png(1, 1)
    # A PNG that says it is 30000 × 30000.
    chunk = b"IHDR" + struct.pack(">II", 30000, 30000) + header[24:29]
    bomb = header[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + header[33:]
    start = time.perf_counter()
    with pytest.raises(MediaLimitError):
        load_image(bomb)
    assert time.perf_counter() - start < 1


def test_formats() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "TIFF")
    assert load_image(buffer.getvalue()).size == (4, 4)
    with pytest.raises(MediaDecodeError, match="not in an allowed format"):
        load_image(buffer.getvalue(), STRICT)
    with pytest.raises(MediaDecodeError, match="not a picture"):
        load_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def test_strict_policy(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(MediaRefusedError, match="allow_files"):
        load_image(tmp_path / "a.png", STRICT)
    with pytest.raises(MediaRefusedError, match="allow_urls"):
        load_image("http://example.com/a.png", STRICT)
    assert load_image(png(), STRICT).size == (8, 6)


def test_every_field_of_the_policy_is_documented() -> None:
    """With its limit in `strict()`, if that is another one."""
    (policy,) = (node for node in ast.parse(inspect.getsource(MediaPolicy)).body if isinstance(node, ast.ClassDef))
    documented = {}
    for field, text in pairwise(policy.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), field.target.id
            documented[field.target.id] = ast.literal_eval(text.value)
    assert list(documented) == [field.name for field in fields(MediaPolicy)]
    for name, text in documented.items():
        assert (", strict " in text) == (getattr(STRICT, name) != getattr(MediaPolicy(), name)), name


class Handler(BaseHTTPRequestHandler):
    """Serves what the tests ask for by path."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/ok.png":
            self._send(png())
        elif path == "/html":
            self._send(b"<html>")
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                time.sleep(0.05)
                self.wfile.write(b"x")
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(1000):
                    self.wfile.write(b"x" * 65536)
            except OSError:
                pass
        elif path == "/declared":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
        elif path == "/loop":
            self._redirect("/loop")
        elif path.startswith("/to/"):
            self._redirect(path.removeprefix("/to/"))
        else:
            self.send_error(404)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def _redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_urls(server: str) -> None:
    assert load_image(f"{server}/ok.png").size == (8, 6)
    assert load_image(f"{server}/to//ok.png").size == (8, 6)
    with pytest.raises(MediaDecodeError, match="not a picture"):
        load_image(f"{server}/html")
    with pytest.raises(MediaFetchError, match="status 404"):
        load_image(f"{server}/nothing?token=secret")


def test_url_messages_hide_secrets(server: str) -> None:
    with pytest.raises(MediaFetchError) as error:
        load_image(server.replace("//", "//user:password@") + "/nothing?token=secret")
    assert "secret" not in str(error.value)
    assert "password" not in str(error.value)


def test_url_limits(server: str) -> None:
    for path in ("/endless", "/declared"):
        with pytest.raises(MediaLimitError, match="max_bytes"):
            load_image(f"{server}{path}", MediaPolicy(max_bytes=1 << 20))
    with pytest.raises(MediaFetchError, match=r"in time|too long"):
        load_image(f"{server}/slow", MediaPolicy(total_timeout=0.3))
    with pytest.raises(MediaLimitError, match="max_redirects"):
        load_image(f"{server}/loop", MediaPolicy(max_redirects=2))
    with pytest.raises(MediaFetchError):
        load_image("http://127.0.0.1:9/closed.png")
    with pytest.raises(MediaError):
        load_image("http://[broken/a.png")


def test_domains(server: str) -> None:
    policy = MediaPolicy(allowed_domains=("example.com",))
    with pytest.raises(MediaRefusedError, match="allowed_domains"):
        load_image(f"{server}/ok.png", policy)
    with pytest.raises(MediaRefusedError, match="allowed_domains"):
        load_image("http://example.com.evil.org/a.png", policy)
    with pytest.raises(MediaFetchError, match="not a valid URL"):  # parsers disagree on what its host is
        load_image("http://127.0.0.1\\@example.com/a.png", policy)
    allowed = MediaPolicy(allowed_domains=("127.0.0.1",))
    assert load_image(f"{server}/ok.png", allowed).size == (8, 6)
    with pytest.raises(MediaRefusedError, match="allowed_domains"):
        load_image(f"{server}/to/http://localhost:1/x", allowed)
    with pytest.raises(MediaRefusedError, match="only http"):
        load_image(f"{server}/to/file:///etc/passwd")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "0.0.0.0",
        "2130706433",
    ],
)
def test_private_addresses_are_refused(host: str) -> None:
    policy = MediaPolicy(allow_private_addresses=False, connect_timeout=2, allowed_ports=(1,))
    with pytest.raises((MediaRefusedError, MediaFetchError)) as error:
        load_image(f"http://{host}:1/a.png", policy)
    assert "not public" in str(error.value) or "not known" in str(error.value)


def test_the_checked_address_is_the_one_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(server.rsplit(":", 1)[1])
    answers = iter(["127.0.0.1"])

    def resolve(host: str, *arguments: Any, **keywords: Any) -> list[Any]:
        if host == "pictures.example":
            # A second question would get no answer: the address is looked up once.
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]
        return real(host, *arguments, **keywords)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(network, "is_public", lambda address: True)
    policy = MediaPolicy(
        allow_private_addresses=False, allowed_domains=("pictures.example",), allowed_ports=range(1, 65536)
    )
    assert load_image(f"http://pictures.example:{port}/ok.png", policy).size == (8, 6)


def test_redirects_are_checked_again(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    public = iter([True, False])
    monkeypatch.setattr(network, "is_public", lambda address: next(public))
    policy = MediaPolicy(allow_private_addresses=False, allowed_ports=range(1, 65536))
    with pytest.raises(MediaRefusedError, match="not public"):
        load_image(f"{server}/to/http://127.0.0.1:1/secret", policy)


def test_ports(server: str) -> None:
    for policy in (MediaPolicy(allow_private_addresses=False), MediaPolicy(allowed_ports=(80, 443))):
        for port in (22, 8080, 6379):
            with pytest.raises(MediaRefusedError, match=f"the port {port} is not in MediaPolicy.allowed_ports"):
                load_image(f"http://127.0.0.1:{port}/a.png", policy)
    port = int(server.rsplit(":", 1)[1])
    assert load_image(f"{server}/ok.png", MediaPolicy(allowed_ports=(port,))).size == (8, 6)
    with pytest.raises(MediaRefusedError, match="allowed_ports"):  # a redirect is checked too
        load_image(f"{server}/to/http://127.0.0.1:22/x", MediaPolicy(allowed_ports=(port,)))
