"""The files of a tokenizer: what they say, and what is written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from ..checkpoint.hub import HUB_NAMES, Checkpoint
from ..checkpoint.json_files import MAX_BYTES, JsonObject, read_optional_json, read_text
from ..quoting import shown
from ..unknown_names import is_misspelt, unknown_name
from .special_tokens import NAMED_TOKENS
from .tokenizer_checks import check_backend

# Entries about where a tokenizer was loaded from: they are not written.
_PRIVATE_KEYS = frozenset({"name_or_path", "vocab_file", "tokenizer_file", "is_local", "local_files_only", "backend"})

MAX_TEMPLATE = 1 << 20
"""The largest chat template in bytes."""

CONFIG_NAMES = frozenset(
    {
        "additional_special_tokens",
        "chat_template",
        "clean_up_tokenization_spaces",
        "extra_special_tokens",
        "max_len",
        "model_max_length",
        "name_or_path",
        "padding_side",
        "truncation_side",
        *NAMED_TOKENS,
    }
)
"""The entries of tokenizer_config.json that are read, but for the names that a config gives to tokens."""


def check_overrides(names: Iterable[str]) -> None:
    """Raise TypeError for a name that looks like a misspelt one. A checkpoint may name any token (`image_token`)."""
    known = {*CONFIG_NAMES, *HUB_NAMES}
    for name in names:
        if name not in known and not name.endswith("_token") and is_misspelt(name, known):
            raise unknown_name(name, known)


def read_config(files: Checkpoint) -> JsonObject:
    """Return tokenizer_config.json, with what older checkpoints keep in special_tokens_map.json, and the template."""
    config = read_optional_json(files.find("tokenizer_config.json"))
    if "added_tokens_decoder" not in config:
        config.update(read_optional_json(files.find("special_tokens_map.json")))
    template = files.find("chat_template.jinja")
    if template is not None:
        config["chat_template"] = read_text(template, MAX_TEMPLATE)
    return config


def read_backend(path: Path) -> Tokenizer:
    """Return the tokenizer in a tokenizer.json; a broken one, or one without bounds, is an OSError that names it."""
    with path.open("rb") as file:  # one that may not be read is a PermissionError, not a broken tokenizer
        size = file.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        raise OSError(f"{path} has {size} bytes, a tokenizer may have {MAX_BYTES}.")
    try:
        backend = Tokenizer.from_file(str(path))
        check_backend(backend)
        return backend
    except Exception as error:  # the library raises a plain Exception
        raise OSError(f"{path} is not a tokenizer of the tokenizers library: {error}") from error


def side(settings: JsonObject, name: str) -> str:
    """Return the side in a config, "right" if it has none; ValueError for another word."""
    side = settings.get(name) or "right"
    if side not in ("left", "right"):
        raise ValueError(f"{name} must be 'left' or 'right', got {shown(side)}")
    return str(side)


def chat_template_of(settings: JsonObject) -> str | dict[str, str] | None:
    """Return the template of a config: a text, or texts by name. Raises ValueError for anything else."""
    template = settings.get("chat_template")
    if template is None or isinstance(template, str):
        return template
    if isinstance(template, dict):
        entries = [{"name": name, "template": text} for name, text in template.items()]
    elif isinstance(template, (list, tuple)):
        entries = list(template)
    else:
        raise ValueError(f"chat_template must be a text, or texts by name; got {shown(template)}")
    for entry in entries:
        known = entry if isinstance(entry, dict) else {}
        if not (isinstance(known.get("name"), str) and isinstance(known.get("template"), str)):
            raise ValueError(f"chat templates have a name and a template, both texts; got {shown(entry)}")
    return {entry["name"]: entry["template"] for entry in entries}


def take_backend_defaults(backend: Tokenizer) -> JsonObject:
    """Switch off the padding and truncation that a tokenizer.json sets, and return them as entries of a config.

    Every call chooses them anew, and they would be state of an object that calls share.
    """
    defaults: JsonObject = {}
    truncation, padding = backend.truncation, backend.padding
    if truncation is not None:
        backend.no_truncation()
        defaults.update(max_length=truncation["max_length"], truncation_side=truncation["direction"])
    if padding is not None:
        backend.no_padding()
        defaults.update(
            pad_token=padding["pad_token"],
            padding_side=padding["direction"],
            pad_to_multiple_of=padding["pad_to_multiple_of"],
        )
    return defaults


def special_tokens(config: JsonObject) -> tuple[dict[str, str], list[str]]:
    """Return the special tokens of a config: those with a name by name, and those without."""
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


def missing_tokens(backend: Tokenizer, config: JsonObject, special: Iterable[str]) -> list[AddedToken]:
    """Return what only the config knows, in the order in which it gets ids: its added tokens, then `special` ones."""
    known = backend.get_added_tokens_decoder()
    listed = config.get("added_tokens_decoder") or {}
    special = list(special)
    missing = []
    for index, token in sorted(((int(index), added_token(token)) for index, token in listed.items())):
        if index not in known:
            token.special = token.special or token.content in special
            missing.append(token)
    contents = {token.content for token in [*known.values(), *missing]}
    for content in special:
        if content not in contents:
            contents.add(content)
            missing.append(AddedToken(content, special=True, normalized=False))
    return missing


def added_token(token: object) -> AddedToken:
    """Return a token of a config: a string, or a dict with the fields of an AddedToken."""
    if isinstance(token, AddedToken):
        return token
    if isinstance(token, str):
        return AddedToken(token, special=True, normalized=False)
    if isinstance(token, dict):
        fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
        return AddedToken(**{key: token[key] for key in fields if key in token})
    raise TypeError(f"a special token must be a string or an AddedToken, got {type(token).__name__}")


def config_text(config: JsonObject, named: Mapping[str, str], changed: JsonObject) -> str:
    """Return the text of a tokenizer_config.json: what was read, with today's `named` tokens and `changed` entries."""
    replaced = {*_PRIVATE_KEYS, "added_tokens_decoder", "additional_special_tokens", "chat_template", *NAMED_TOKENS}
    entries = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{key: value for key, value in config.items() if key not in replaced},
        **named,
        "extra_special_tokens": {name: token for name, token in named.items() if name not in NAMED_TOKENS},
        **changed,
    }

    def encode(value: object) -> JsonObject:
        if isinstance(value, AddedToken):
            return {**value.__getstate__(), "__type": "AddedToken"}  # type: ignore[operator]
        raise TypeError(f"{type(value).__name__} cannot be written to tokenizer_config.json")

    return json.dumps(entries, indent=2, sort_keys=True, ensure_ascii=False, default=encode) + "\n"
