"""URLs as people and pages write them: quoted as browsers quote, refused if parsers disagree on the host."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

if TYPE_CHECKING:
    import httpx2

_HTTP = re.compile(r"[ \t\r\n\f]*https?://", re.IGNORECASE)
_PARTS = re.compile(
    r"(https?)://(?:([^/?#@]*)@)?(\[[0-9a-f:.]+\]|[^/?#@:\[\]]+)(?::([0-9]*))?((?:[/?][^#]*)?)(?:#.*)?", re.I
)
# What ends a host, or is dropped, in some parsers and not in others.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:)", re.IGNORECASE)
_BLANKS = " \t\r\n\f"
_LONGEST = 65_536


class InvalidURLError(Exception):
    """A text that is no URL of http or https, or not surely of one host; says why."""


def is_url(text: str) -> bool:
    """Whether a text is meant as a URL of http or https; blanks around it do not count."""
    return _HTTP.match(text) is not None


def scheme_of(text: str) -> str | None:
    """Return the scheme of an absolute URL in lower case, None of a relative one."""
    found = _SCHEME.match(text)
    return found[0].lower() if found else None


def parse_url(text: str) -> httpx2.URL:
    """Return a URL with its host in ASCII, its path and query quoted, without a fragment.

    Raises InvalidURLError.
    """
    import httpx2

    text = checked_text(text)
    match = _PARTS.fullmatch(text)
    if match is None:
        raise InvalidURLError("is not a valid URL")
    scheme, user, host, port, rest = match.groups()
    host = host.lower() if host.startswith("[") else host_name(host)
    if port and not 1 <= int(port[:6]) <= 65_535:
        raise InvalidURLError("is not a valid URL: its port is not between 1 and 65535")
    authority = f"{'' if user is None else user + '@'}{host}{':' + port if port else ''}"
    try:
        return httpx2.URL(f"{scheme.lower()}://{authority}{rest}")
    except httpx2.InvalidURL:
        raise InvalidURLError("is not a valid URL") from None


def joined(base: str, location: str) -> str:
    """Return the URL that `location`, absolute or relative to `base`, means. Raises InvalidURLError."""
    location = checked_text(location)
    try:
        return urljoin(base, location) if scheme_of(location) is None else location
    except ValueError:
        raise InvalidURLError("is not a valid URL") from None


def checked_text(text: str) -> str:
    """Return a URL without the blanks around it; raises InvalidURLError for characters that can change its host."""
    text = text.strip(_BLANKS)
    if len(text) > _LONGEST:
        raise InvalidURLError(f"is not a valid URL: it is longer than {_LONGEST} characters")
    if _CONTROL.search(text):
        raise InvalidURLError("is not a valid URL: it holds control characters")
    if "\\" in text.partition("?")[0].partition("#")[0]:
        raise InvalidURLError("is not a valid URL: it holds a backslash")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidURLError("is not a valid URL: it holds half of a surrogate pair")
    return text


def host_name(host: str) -> str:
    """Return the name of a host in ASCII and lower case, without a dot at its end. Raises InvalidURLError."""
    if not host.isascii() and len(host) <= 253:
        import idna

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise InvalidURLError("is not a valid URL: its host is no name") from None
    host = host.removesuffix(".").lower()
    if not _HOST.fullmatch(host):
        raise InvalidURLError("is not a valid URL: its host is no name")
    return host
