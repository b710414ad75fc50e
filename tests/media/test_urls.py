"""URLs as people write them: what browsers take is fetched, what can change the host is refused."""

from __future__ import annotations

import socket

import pytest
from faster_smolvlm.media import MediaError, MediaFetchError, MediaPolicy, MediaRefusedError, load_image
from faster_smolvlm.media.urls import InvalidURLError, is_url, parse_url
from faster_smolvlm.media.video import load_video
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.raw_server import body, fetched, raw_server, request

# URL -> the host that is connected to and what is asked of it, as browsers do.
TAKEN = {
    "http://h/a b.png": ("h", "/a%20b.png"),
    "http://h/b\u00e4r.png": ("h", "/b%C3%A4r.png"),
    "http://h/\u56fe.png?q=\u56fe x": ("h", "/%E5%9B%BE.png?q=%E5%9B%BE%20x"),
    'http://h/a"<>`{}.png': ("h", "/a%22%3C%3E%60%7B%7D.png"),
    "http://h/a|b^c[1].png": ("h", "/a|b^c[1].png"),
    "http://h/100%.png": ("h", "/100%.png"),
    "http://h/a%20b%2Fc.png": ("h", "/a%20b%2Fc.png"),
    "  http://h/a.png \r\n": ("h", "/a.png"),
    "HTTP://H/A.png": ("h", "/A.png"),
    "HtTpS://h/a.png": ("h", "/a.png"),
    "http://h": ("h", "/"),
    "http://h?a=b": ("h", "/?a=b"),
    "http://h#part": ("h", "/"),
    "http://h/a.png#part": ("h", "/a.png"),
    "http://h/a/../b/./c.png": ("h", "/b/c.png"),
    "http://h/a?x=\\y": ("h", "/a?x=\\y"),
    "http://h./a.png": ("h", "/a.png"),
    "http://h:/a.png": ("h", "/a.png"),
    "http://h:0080/a.png": ("h", "/a.png"),
    "http://h:8080/a.png": ("h", "/a.png"),
    "http://user:pass word@h/a.png": ("h", "/a.png"),
    "http://my_host-1.example/a.png": ("my_host-1.example", "/a.png"),
    "http://b\u00fccher.example/a.png": ("xn--bcher-kva.example", "/a.png"),
    "http://bu\u0308cher.example/a.png": ("xn--bcher-kva.example", "/a.png"),
    "http://\uff42\uff4f\uff4f\uff4b\u3002example/a.png": ("book.example", "/a.png"),
    "http://[::1]:80/a.png": ("::1", "/a.png"),
    "http://[::FFFF:127.0.0.1]/a.png": ("::ffff:127.0.0.1", "/a.png"),
}

REFUSED = [
    "http://a..b/",
    "http://.a/",
    "http:///a.png",
    "http://",
    "http://?x",
    "http://h\\@evil.example/",
    "http://h\\evil",
    "http://h/a\\b.png",
    "http://h\t/a.png",
    "http://h/a\nb.png",
    "http://h/a\rHost: x",
    "http://h/\0",
    "http://h/\x7f",
    "http://a b/",
    "http://h%20/",
    "http://%6c%6f/",
    "http://a@b@c/",
    "http://h:80:90/",
    "http://h:-1/",
    "http://h:0/",
    "http://h:65536/",
    "http://h:99999999999999999999/",
    "http://h:8\u0660/",
    "http://h:http/",
    "http://[::1/",
    "http://::1/",
    "http://[h]/",
    "http://[fe80::1%25eth0]/",
    "http://[1:2:3:4:5:6:7:8:9]/",
    "http://[]/",
    "http://1.2.3.400/",
    "http://*/",
    "http://a,b/",
    "http://a;b/",
    "http://a<b/",
    "http://a\u2100b.example/",  # its compatibility form holds a slash
    "http://\ufe0f/",
    "http://" + "a" * 64 + ".example/",
    "http://" + "a." * 130 + "example/",
    "http://" + "\u00e4" * 60_000 + "/",
    "http://xn--\u00e4/",
    "http://h/half \ud83d.png",
    "http://h/" + "x" * 70_000,
]


@pytest.mark.parametrize("url", TAKEN)
def test_what_browsers_take(url: str) -> None:
    assert is_url(url)
    parsed = parse_url(url)
    assert (parsed.raw_host.decode("ascii"), parsed.raw_path.decode("ascii")) == TAKEN[url]


@pytest.mark.parametrize("url", REFUSED, ids=range(len(REFUSED)))
def test_what_can_change_the_host(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **keywords: pytest.fail("was looked up"))
    for read in (load_image, load_video):
        with pytest.raises(MediaFetchError, match="is not a valid URL") as error:
            read(url, policy=MediaPolicy())
        assert len(str(error.value)) < 500


def test_urls_arrive_quoted() -> None:
    heads: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while True:
            heads.append(request(connection))
            redirect = b"a%20b" in heads[-1]
            sent = body(b"", "Location: /ü c?d e".encode(), status=b"302 Found") if redirect else body(b"picture")
            connection.sendall(sent)

    with raw_server(answer) as server:
        assert fetched(f" HTTP://{server}/a b.png?c=\u00e4\n") == b"picture"
        assert [head.split(b" HTTP/")[0] for head in heads] == [b"GET /a%20b.png?c=%C3%A4", b"GET /%C3%BC%20c?d%20e"]
        assert f"host: {server}\r\n".encode() in heads[0].lower()


@pytest.mark.parametrize(
    "location", ["http://a..b/", "//a@b@c/", "\\\\evil.example/", "http://[::1", "//h:0/", "http://"]
)
def test_redirects_are_parsed_alike(location: str) -> None:
    def answer(connection: socket.socket) -> None:
        while True:
            request(connection)
            connection.sendall(body(b"", b"Location: " + location.encode(), status=b"302 Found"))

    with raw_server(answer) as server, pytest.raises(MediaError, match="is not a valid URL"):
        fetched(f"http://{server}/a.png")


def test_domains_in_other_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resolve(host: str, *arguments: object, **keywords: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    policy = MediaPolicy(allowed_domains=("B\u00dcCHER.example", ".example.org.", "[::1]"))
    for url in ("http://b\u00fccher.example/", "http://www.xn--bcher-kva.example/", "http://EXAMPLE.org./"):
        with pytest.raises(MediaFetchError, match="its host is not known"):
            fetched(url, policy)
    for url in (
        "http://bucher.example/",
        "http://notexample.org/",
        "http://[::2]/",
        "http://example.org@evil.example/",
    ):
        with pytest.raises(MediaRefusedError, match="allowed_domains"):
            fetched(url, policy)
    with pytest.raises(MediaFetchError, match="could not be fetched"):
        fetched("http://[0:0::1]:1/", policy)
    assert asked == ["xn--bcher-kva.example", "www.xn--bcher-kva.example", "example.org", "::1"]


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        url = parse_url("http://" + text)
    except InvalidURLError:
        return
    host, path = url.raw_host.decode("ascii"), url.raw_path.decode("ascii")
    assert host
    assert not set(host) & set("/\\@?#% \t\r\n")
    assert not set(path) & set(" \t\r\n\0")
