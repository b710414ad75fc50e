"""What the files of a tokenizer say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def side(settings: dict[str, Any], name: str) -> str:
    """Return the side that a config names, "right" where it names none; ValueError for another word."""
    side = settings.get(name) or "right"
    if side not in ("left", "right"):
        raise ValueError(f"{name} must be 'left' or 'right', got {side!r}")
    return str(side)


def chat_template_of(template: Any) -> str | dict[str, str] | None:
    """Return the template of a config: a text, or texts by name."""
    if isinstance(template, (list, tuple)):
        return {entry["name"]: entry["template"] for entry in template}
    return template  # type: ignore[no-any-return]


def special_tokens(config: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the special tokens with a name, and those without, of a tokenizer_config.json."""
    named: dict[str, str] = {}
    for key, value in config.items():
        if key.endswith("_token") and value is not None:
            if isinstance(value, (str, AddedToken, dict)):
                named[key] = added_token(value).content
            elif key in NAMED_TOKENS:
                raise TypeError(f"Special token {key} has to be either str or AddedToken but got: {type(value)}")
    extra = config.get("extra_special_tokens") or {}
    for nested in (extra, config.get("model_specific_special_tokens") or {}):
        if isinstance(nested, dict):
            named.update({key: added_token(value).content for key, value in nested.items()})
    unnamed = extra if isinstance(extra, (list, tuple)) and extra else config.get("additional_special_tokens") or []
    ordered = {name: named[name] for name in [*(n for n in NAMED_TOKENS if n in named), *named]}
    return ordered, [added_token(token).content for token in unnamed]


def added_token(token: Any) -> AddedToken:
    """Return a token of a config: a string, or a dict with the fields of an AddedToken."""
    if isinstance(token, AddedToken):
        return token
    if isinstance(token, str):
        return AddedToken(token, special=True, normalized=False)
    if isinstance(token, dict):
        fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
        return AddedToken(**{key: token[key] for key in fields if key in token})
    raise TypeError(f"a special token must be a string or an AddedToken, got {type(token).__name__}")


def read_backend(path: Path) -> Tokenizer:
    """Return the tokenizer in a tokenizer.json; a broken one is an OSError that names it."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a plain Exception
        raise OSError(f"{path} is not a tokenizer of the tokenizers library: {error}") from error


def to_json(config: dict[str, Any]) -> str:
    """Return the text of a tokenizer_config.json."""

    def encode(value: Any) -> Any:
        if isinstance(value, AddedToken):
            return {**value.__getstate__(), "__type": "AddedToken"}  # type: ignore[operator]
        raise TypeError(f"{type(value).__name__} cannot be written to tokenizer_config.json")

    return json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False, default=encode) + "\n"
