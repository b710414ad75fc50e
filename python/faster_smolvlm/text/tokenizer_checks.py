"""What a tokenizer.json of a stranger may ask for: work that grows with the text, and no text that grows without bound.

The library that reads these files bounds neither. A `tokenizers.Tokenizer` that a caller built is not checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from tokenizers import Tokenizer

from ..quoting import shown

MAX_PARTS = 32
"""How many normalizers, pre-tokenizers, decoders or post-processors may follow each other."""

MAX_GROWTH = 16.0
"""How many times longer a text may become by all replacements together."""

MAX_ADDED = 1024
"""How many characters, or ids, may be added to a text beside that."""

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")
_LONGEST_PIECE = 512
# Patterns of published tokenizers: what follows their repetitions cannot make a match fail again and again.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_KNOWN = frozenset(
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        rf"{_CONTRACTIONS}\p{{N}}{_REST}",
        rf"{_CONTRACTIONS}\p{{N}}{{1,3}}{_REST}",
    )
)
_CLASS = r"\[\^?(?:\\[pP]\{\^?\w{1,40}\}|\\[^pPxucCM0-9]|[^\\\[\]&])+\]"
_ATOM = rf"(?:\\[pP]\{{\^?\w{{1,40}}\}}|\\[^pPkgxucXCMKRO0-9]|{_CLASS}|[^\\\[\](){{}}|*+?])"
_OPTIONAL = rf"(?:{_ATOM}(?:\?|\{{\d(?:,\d)?\}}))?"
_REPEATED = rf"(?:{_ATOM}(?:\*|\+|\{{\d,\}}))?"
_FIXED = rf"{_ATOM}{{0,32}}"
# Optional items multiply the ways to fail: two of them at most.
_ALTERNATIVE = re.compile(_FIXED + _OPTIONAL + _FIXED + _OPTIONAL + _FIXED + _REPEATED)


def check_backend(backend: Tokenizer) -> None:
    """Raise ValueError, naming the part, for a tokenizer whose work or output has no reasonable bound."""
    for name in _PARTS:
        part = getattr(backend, name)
        if part is not None:
            _check_part(name, json.loads(part.__getstate__()))
    model = backend.model
    kind = type(model).__name__
    if kind == "WordPiece" and model.max_input_chars_per_word > _LONGEST_PIECE:
        raise ValueError(f"its WordPiece model takes words of more than {_LONGEST_PIECE} characters")
    if kind == "Unigram":
        longest = max(map(len, backend.get_vocab()), default=0)
        if longest > _LONGEST_PIECE:
            raise ValueError(f"its Unigram model has a piece of {longest} characters, allowed are {_LONGEST_PIECE}")


def _check_part(name: str, part: Mapping[str, object]) -> None:
    steps = list(_steps(part))
    if len(steps) > MAX_PARTS:
        raise ValueError(f"its {name} has {len(steps)} parts, allowed are {MAX_PARTS}")
    growth, added = 1.0, 0
    for step in steps:
        pattern = step.get("pattern")
        if isinstance(pattern, dict):
            check_pattern(name, pattern.get("Regex"))
        if step.get("type") == "Replace":
            growth *= _replacement_growth(pattern, step.get("content"))
        elif step.get("type") == "Precompiled":
            growth *= 2.0 if len(str(step.get("precompiled_charsmap"))) < 1 << 20 else float("inf")
        elif step.get("type") == "TemplateProcessing":
            copies, ids = _template_growth(step)
            growth *= copies
            added += ids
        added += sum(len(text) for text in map(step.get, ("prepend", "prefix", "suffix")) if isinstance(text, str))
    if growth > MAX_GROWTH or added > MAX_ADDED:
        raise ValueError(
            f"its {name} can make a text {growth:.3g} times as long, and {added} longer; allowed are {MAX_GROWTH:.0f} "
            f"times and {MAX_ADDED}"
        )


def _steps(part: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield a part, or what it is a sequence of."""
    inner = [step for name in _LISTS if isinstance(steps := part.get(name), list) for step in steps]
    if part.get("type") != "Sequence":
        yield part
    for step in inner:
        if isinstance(step, dict):
            yield from _steps(step)


def _replacement_growth(pattern: object, content: object) -> float:
    """Return how many times longer a text can become if each match of the pattern becomes the content."""
    text = pattern.get("String") if isinstance(pattern, dict) else None
    length = len(content) if isinstance(content, str) else 0
    if isinstance(text, str) and text:
        return max(1.0, length / len(text))
    return 1.0 + length  # an expression may match between two characters


def _template_growth(step: Mapping[str, object]) -> tuple[int, int]:
    """Return how often a template holds the text, at least 1, and how many ids it adds."""
    special = step.get("special_tokens")
    ids = {name: len(token.get("ids", ())) for name, token in special.items()} if isinstance(special, dict) else {}
    copies, added = 1, 0
    for name in ("single", "pair"):
        pieces = step.get(name)
        pieces = pieces if isinstance(pieces, Sequence) else ()
        texts = [piece["Sequence"]["id"] for piece in pieces if "Sequence" in piece]
        copies = max(copies, texts.count("A"), texts.count("B"))
        added += sum(ids.get(piece["SpecialToken"]["id"], 1) for piece in pieces if "SpecialToken" in piece)
    return copies, added


def check_pattern(name: str, pattern: object) -> None:
    """Refuse a regular expression that may search for ever.

    Known ones pass, and those whose alternatives repeat without bound at their end only, so that nothing after a
    repetition can fail. Raises ValueError.
    """
    if pattern is None or pattern in _KNOWN:
        return
    simple = isinstance(pattern, str) and len(pattern) <= 1000
    if not simple or not all(map(_ALTERNATIVE.fullmatch, _alternatives(str(pattern)))):
        raise ValueError(
            f"its {name} has the regular expression {shown(pattern)}, whose search may take for ever; if you trust it, "
            "pass tokenizers.Tokenizer.from_file(path) to the class of the tokenizer"
        )


def _alternatives(pattern: str) -> list[str]:
    """Split at each `|` that is neither escaped nor in a class."""
    parts, inside, escaped = [""], False, False
    for letter in pattern:
        if letter == "|" and not inside and not escaped:
            parts.append("")
            continue
        if not escaped and letter in "[]":
            inside = letter == "["
        escaped = letter == "\\" and not escaped
        parts[-1] += letter
    return parts
