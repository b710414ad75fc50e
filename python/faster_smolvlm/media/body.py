"""The body of an answer within limits: its bytes as sent, and as unpacked."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..quoting import quoted
from .errors import MediaFetchError
from .limits import check_bytes

if TYPE_CHECKING:
    import httpx2

    from .policy import MediaPolicy

_PIECES, _PIECE_BYTES = 20_000, 256  # pieces that a body may have however small they are, and their mean size beyond
_GZIP_OR_ZLIB, _DEFLATE = 47, -15  # window bits


def read_body(response: httpx2.Response, label: str, policy: MediaPolicy) -> bytes:
    """Return the body; raises MediaFetchError or MediaLimitError."""
    if not 200 <= response.status_code < 300:
        raise MediaFetchError(f"{label} answered with status {response.status_code}")
    declared = response.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit():
        check_bytes(int(declared[:20]), label, policy)
    # Sizes and extensions of chunks come on top.
    response.extensions["network_stream"].allow(2 * policy.max_bytes + (1 << 20))
    encodings = response.headers.get("content-encoding", "").lower().replace(" ", "").split(",")
    encodings = [name for name in encodings if name not in ("", "identity")]
    pieces = _pieces(response, label, policy)
    body = io.BytesIO()
    for piece in _unpacked(pieces, encodings, label, policy.max_bytes) if encodings else pieces:
        body.write(piece)
        check_bytes(body.tell(), label, policy)
    return body.getvalue()


def _pieces(response: httpx2.Response, label: str, policy: MediaPolicy) -> Iterator[bytes]:
    """Yield the bytes as sent; refuses bodies in tiny pieces, which cost far more time than their bytes are worth."""
    size = 0
    for number, piece in enumerate(response.iter_raw()):
        size += len(piece)
        check_bytes(size, label, policy)
        if number > _PIECES + size // _PIECE_BYTES:
            raise MediaFetchError(
                f"{label} sends its body in more than {number} pieces of less than {_PIECE_BYTES} bytes"
            )
        yield piece


def _unpacked(pieces: Iterator[bytes], encodings: list[str], label: str, limit: int) -> Iterator[bytes]:
    """Yield what gzip or deflate has packed, at most about `limit` bytes at a time."""
    if encodings not in (["gzip"], ["x-gzip"], ["deflate"]):
        raise MediaFetchError(
            f"{label} is packed as {quoted(', '.join(encodings))}; only one of gzip and deflate is understood"
        )
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    begun = False
    try:
        for piece in pieces:
            try:
                yield decoder.decompress(piece, limit + 1)
            except zlib.error:
                if begun or encodings != ["deflate"]:
                    raise
                decoder = zlib.decompressobj(_DEFLATE)  # some servers leave the header of zlib out
                yield decoder.decompress(piece, limit + 1)
            begun = True
            while decoder.unconsumed_tail:
                yield decoder.decompress(decoder.unconsumed_tail, limit + 1)
    except zlib.error:
        raise MediaFetchError(f"{label} is not packed as it says ({encodings[0]})") from None
    if begun and not decoder.eof:
        raise MediaFetchError(f"{label} is cut off")
