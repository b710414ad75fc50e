"""A tokenizer.json of a stranger: without bounds it is refused when it is loaded, published ones are taken."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from faster_smolvlm.checkpoint import json_files
from faster_smolvlm.text.tokenization_smolvlm import SmolVLMTokenizer
from faster_smolvlm.text.tokenizer_checks import check_pattern
from faster_smolvlm.text.tokenizer_config import read_backend

DEMO = json.loads((Path(json_files.__file__).parents[1] / "demo" / "tokenizer.json").read_text())


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(name: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", name: steps}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


DOUBLE = replace({"String": "a"}, "aa")
TEMPLATE = {"type": "TemplateProcessing", "special_tokens": {}}
TEXT, OTHER = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
HOSTILE: dict[str, dict[str, Any]] = {
    "replacements that double": {"normalizer": sequence("normalizers", [DOUBLE] * 31)},
    "nested sequences": {"normalizer": sequence("normalizers", [sequence("normalizers", [DOUBLE] * 20)] * 2)},
    "many parts": {"normalizer": sequence("normalizers", [{"type": "Lowercase"}] * 40)},
    "a long replacement": {"normalizer": replace({"String": "a"}, "x" * 1000)},
    "an expression between characters": {"normalizer": replace({"Regex": "b{0}"}, "x" * 100)},
    "an empty pattern": {"normalizer": replace({"String": ""}, "x" * 100)},
    "long beginnings": {"normalizer": {"type": "Prepend", "prepend": "x" * 100_000}},
    "exponential backtracking": {"normalizer": replace({"Regex": "(a+)+$"}, "b")},
    "backtracking in a split": {"pre_tokenizer": split("(x+x+)+y")},
    "quadratic search": {"pre_tokenizer": sequence("pretokenizers", [split("x+y")])},
    "a decoder that doubles": {"decoder": sequence("decoders", [DOUBLE] * 30)},
    "a template of copies": {"post_processor": {**TEMPLATE, "single": [TEXT] * 10_000, "pair": [TEXT, OTHER]}},
    "long words": {
        "model": {
            "type": "WordPiece", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 10**9,
        },
        "added_tokens": [], "pre_tokenizer": None, "decoder": None,
    },
    "long pieces": {
        "model": {
            "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a" * 5000, -1.0]], "byte_fallback": False,
        },
        "added_tokens": [], "pre_tokenizer": None, "decoder": None,
    },
}  # fmt: skip
WELCOME: dict[str, dict[str, Any]] = {
    "as it is": {},
    "Llama 2": {
        "normalizer": sequence("normalizers", [{"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁")]),
        "decoder": sequence("decoders", [replace({"String": "▁"}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]),
    },
    "a beginning": {
        "post_processor": {
            **TEMPLATE, "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, TEXT], "pair": [TEXT, OTHER],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        }
    },
    "a simple expression": {"pre_tokenizer": split(r"\s?\p{N}{1,3}|[^\s\p{L}]+|\w")},
}  # fmt: skip


def written(folder: Path, changes: dict[str, Any]) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**DEMO, **changes}))
    return path


@pytest.mark.parametrize("case", HOSTILE)
def test_a_tokenizer_without_bounds_is_refused(case: str, tmp_path: Path) -> None:
    path = written(tmp_path, HOSTILE[case])
    start = time.process_time()
    with pytest.raises(OSError, match=r"tokenizer\.json is not a tokenizer .*: its ") as refused:
        SmolVLMTokenizer.from_pretrained(tmp_path)
    assert time.process_time() - start < 2
    assert len(str(refused.value)) < 700 + len(str(path))


@pytest.mark.parametrize("case", WELCOME)
def test_published_kinds_are_taken(case: str, tmp_path: Path) -> None:
    backend = read_backend(written(tmp_path, WELCOME[case]))
    assert backend.encode("Hello you 12").ids


def test_published_expressions_pass_and_slow_ones_do_not() -> None:
    end = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    start = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    for pattern in (None, rf"{start}\p{{N}}{{1,3}}{end}", rf"{start}\p{{N}}{end}", r"\d", "a|b+", r"[a-z]+|\||x{3,}"):
        check_pattern("pre_tokenizer", pattern)
    for pattern in (
        "a*b",
        "(a|a)*",
        "a?" * 20 + "a" * 20,
        "a{0,9}" * 3,
        r"(\w)\1",
        "a+a+",
        "x+|y+z",
        "[a&&b]+",
        "(?=a+)b",
        7,
    ):
        with pytest.raises(ValueError, match="regular expression"):
            check_pattern("pre_tokenizer", pattern)


def test_a_deep_or_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = '{"type":"Sequence","normalizers":[' * 100_000
    (tmp_path / "tokenizer.json").write_text(json.dumps({**DEMO, "normalizer": "@"}).replace('"@"', deep))
    with pytest.raises(OSError, match="not a tokenizer"):
        SmolVLMTokenizer.from_pretrained(tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 34)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(OSError, match=f"a tokenizer may have {64 << 20}"):
        SmolVLMTokenizer.from_pretrained(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_huge_template_is_refused(tmp_path: Path) -> None:
    written(tmp_path, {})
    with (tmp_path / "chat_template.jinja").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(OSError, match=r"chat_template\.jinja.* has more than 1048576 bytes"):
        SmolVLMTokenizer.from_pretrained(tmp_path)
