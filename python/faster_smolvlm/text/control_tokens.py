"""Keeping special tokens that a user wrote apart from those that the chat template writes.

A token that stands in a conversation is put between two private characters before the template is rendered; what stands
between them is encoded as plain text afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ..quoting import quoted

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_START, _END = "\U000f0000", "\U000f0001"
_MARKED = re.compile(f"{_START}(.*?){_END}", re.DOTALL)
_MARKS = re.compile(f"[{_START}{_END}]")

UNMARKED = f"(?<!{_START})"
"""The beginning of a pattern that does not match a marked token."""


def mark(value: object, tokens: Iterable[str]) -> Any:
    """Mark the tokens in every text of `value`, at any depth; keys of dicts are left as they are."""
    return _mark(value, _pattern(frozenset(tokens)))


def mark_texts(texts: Sequence[str], tokens: frozenset[str]) -> list[str]:
    """Mark the tokens in texts that a template may write one right behind the other.

    A token that two of them make together is cut by a lone mark, so that it is none.
    """
    pattern = _pattern(tokens)
    clean = [_MARKS.sub("", text) for text in texts]
    marked = [pattern.sub(f"{_START}\\g<0>{_END}", text) for text in clean]
    if len(texts) > 1:
        ends = list(accumulate(map(len, clean)))
        for found in _anywhere(tokens).finditer("".join(clean)):
            for index, end in enumerate(ends[:-1]):
                if found.start() < end < found.end(1):
                    marked[index] = f"{marked[index]}{_END}"
    return marked


def is_marked(text: str) -> bool:
    """Whether a text holds a mark."""
    return _MARKS.search(text) is not None


@lru_cache(maxsize=16)
def _pattern(tokens: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


@lru_cache(maxsize=16)
def _anywhere(tokens: frozenset[str]) -> re.Pattern[str]:
    """A pattern that finds tokens, as its group 1, also if they overlap."""
    return re.compile(f"(?=({_pattern(tokens).pattern}))")


def _mark(value: object, tokens: re.Pattern[str]) -> object:
    if isinstance(value, str):
        return tokens.sub(f"{_START}\\g<0>{_END}", _MARKS.sub("", value))  # marks in it would be forged ones
    if isinstance(value, dict):
        return {key: _mark(item, tokens) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mark(item, tokens) for item in value]
    return value


def without_marked(text: str) -> str:
    """Put a lone mark for each marked token: what stood on its two sides stays apart."""
    return _MARKED.sub(_END, text)


def encode_marked(backend: Tokenizer, text: str) -> list[int]:
    """Encode a text with marked tokens, those as plain text.

    Raises ValueError if the tokenizer makes such a token from plain text too.
    """
    ids: list[int] = []
    for index, piece in enumerate(_MARKED.split(text)):
        if index % 2 == 0:
            for rest in _MARKS.split(piece):  # a lone mark, left by a template that cuts texts, still parts them
                ids += backend.encode(rest, add_special_tokens=False).ids
            continue
        plain = _encode_as_text(backend, piece)
        if backend.token_to_id(piece) in plain:
            raise ValueError(f"Can't sanitize {quoted(piece)}: the tokenizer produces it from plain text")
        ids += plain
    return ids


def _encode_as_text(backend: Tokenizer, text: str) -> list[int]:
    normalized = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    words = [normalized]
    if backend.pre_tokenizer is not None:
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized)]
    return [token.id for word in words for token in backend.model.tokenize(word)]
