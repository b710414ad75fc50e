"""Token ids to bytes and text, one token at a time."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Protocol, cast

from ..quoting import shown


@cache
def _byte_of_character() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    Printable Latin-1 characters stand for themselves; the other bytes, in rising order, for the characters from
    U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    rest = [byte for byte in range(256) if byte not in set(printable)]
    table.update({chr(0x100 + i): byte for i, byte in enumerate(rest)})
    return table


class _AddedToken(Protocol):
    @property
    def special(self) -> bool: ...


class _Backend(Protocol):
    """What is used of a `tokenizers.Tokenizer`."""

    @property
    def decoder(self) -> object: ...
    def id_to_token(self, id: int, /) -> str | None: ...
    def get_added_tokens_decoder(self) -> Mapping[int, _AddedToken]: ...


class TokenBytes:
    """The bytes that each token id of a byte-level tokenizer stands for, looked up once per id.

    `tokenizer` is a `tokenizers.Tokenizer`, or an object with one as its `backend_tokenizer` (Transformers' fast
    tokenizers do). Raises TypeError for anything else, and for a tokenizer that does not decode by bytes.
    """

    def __init__(self, tokenizer: object) -> None:
        backend = cast(_Backend, getattr(tokenizer, "backend_tokenizer", tokenizer))
        if not hasattr(backend, "id_to_token"):
            raise TypeError(
                f"expected a tokenizers.Tokenizer or a fast tokenizer that holds one, got {type(tokenizer).__name__}"
            )
        if "ByteLevel" not in repr(getattr(backend, "decoder", None)):
            raise TypeError(
                f"expected a byte-level tokenizer, as SmolVLM's is; this one decodes by {shown(backend.decoder)}"
            )
        self._backend = backend
        self._bytes: dict[int, bytes] = {}
        self.special_ids = frozenset(
            index for index, token in backend.get_added_tokens_decoder().items() if token.special
        )

    def __getitem__(self, token_id: int) -> bytes:
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._look_up(token_id)
        return known

    def _look_up(self, token_id: int) -> bytes:
        token = self._backend.id_to_token(token_id)
        if token is None:  # the head may be wider than the vocabulary; decoding drops such an id
            return b""
        table = _byte_of_character()
        if all(character in table for character in token):
            return bytes(table[character] for character in token)
        return token.encode()


class IncrementalText:
    """Text of a growing sequence of token ids: a character is given out with the token that completes its UTF-8 bytes.

    What comes out in pieces is what decoding the whole sequence gives.
    """

    def __init__(self, tokens: TokenBytes, *, skip_special_tokens: bool = False) -> None:
        self._tokens = tokens
        self._skipped = tokens.special_ids if skip_special_tokens else frozenset[int]()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_ids: Iterable[int]) -> str:
        """Return the text that `token_ids` complete, which may be empty."""
        return self._decoder.decode(b"".join(self._tokens[i] for i in token_ids if i not in self._skipped))

    def finish(self) -> str:
        """Return what is left of an unfinished character, as U+FFFD, and start anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
