"""The files of a tokenizer: what they say, and what is written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from tokenizers import AddedToken, Tokenizer

from ..checkpoint.hub import HUB_NAMES, Checkpoint
from ..checkpoint.json_files import MAX_BYTES, JsonObject, naming_file, read_optional_json, read_text
from ..integers import as_float
from ..quoting import shown, type_name
from ..unknown_names import is_misspelt, unknown_name
from .special_tokens import NAMED_TOKENS
from .tokenizer_checks import check_backend

# Entries about where a tokenizer was loaded from: they are not written.
_PRIVATE_KEYS = frozenset({"name_or_path", "vocab_file", "tokenizer_file", "is_local", "local_files_only", "backend"})

MAX_TEMPLATE = 1 << 20
"""The largest chat template in bytes."""

MAX_TOKENS = 1 << 14
"""How many tokens a config may add, or call special."""

MAX_TOKEN = 1 << 12
"""The longest token of a config in characters."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

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
    config = _read_entries(files.find("tokenizer_config.json"))
    if "added_tokens_decoder" not in config:
        config.update(_read_entries(files.find("special_tokens_map.json")))
    template = files.find("chat_template.jinja")
    if template is not None:
        config["chat_template"] = read_text(template, MAX_TEMPLATE)
    return config


def _read_entries(path: Path | None) -> JsonObject:
    """Return the entries of a file after a look at each that is read later, so that errors name the file."""
    entries = read_optional_json(path)
    with naming_file(path):
        for name in ("padding_side", "truncation_side"):
            side(entries, name)
        longest_input(entries)
        chat_template_of(entries)
        special_tokens(entries)
        _listed_tokens(entries)
    return entries


def longest_input(settings: JsonObject) -> int | None:
    """Return the `model_max_length` of a config in tokens, None if it states none; ValueError for no number above 0."""
    for name in ("model_max_length", "max_len"):
        length = settings.get(name)
        if length:
            number = as_float(length)
            if number is None or not 0 < number < float("inf"):
                raise ValueError(f"{name} must be a number above 0, got {shown(length)}")
            return cast("int", length)
    return None


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
            raise ValueError(f"chat_template: templates have a name and a template, both texts; got {shown(entry)}")
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
                named[key] = added_token(value, key).content
            elif key in NAMED_TOKENS:
                raise TypeError(f"Special token {key} has to be either str or AddedToken but got: {type_name(value)}")
    extra = config.get("extra_special_tokens") or {}
    own = {"extra_special_tokens": extra, "model_specific_special_tokens": config.get("model_specific_special_tokens")}
    for name, nested in own.items():
        if isinstance(nested, dict):
            named.update({key: added_token(value, f"{name}[{shown(key)}]").content for key, value in nested.items()})
    name = "extra_special_tokens" if isinstance(extra, (list, tuple)) and extra else "additional_special_tokens"
    unnamed = config.get(name) or []
    if not isinstance(unnamed, (list, tuple)):
        raise TypeError(f"{name} must be a list of tokens, got {shown(unnamed)}")
    if len(named) + len(unnamed) > MAX_TOKENS:
        raise ValueError(f"{name}: a config may have {MAX_TOKENS} special tokens, got {len(named) + len(unnamed)}")
    ordered = {name: named[name] for name in [*(n for n in NAMED_TOKENS if n in named), *named]}
    return ordered, [added_token(token, name).content for token in unnamed]


def _listed_tokens(config: JsonObject) -> list[tuple[int, AddedToken]]:
    """Return the tokens of `added_tokens_decoder` with their ids, in their order."""
    name = "added_tokens_decoder"
    listed = config.get(name) or {}
    if not isinstance(listed, dict) or len(listed) > MAX_TOKENS:
        raise ValueError(f"{name} must be a dict of at most {MAX_TOKENS} tokens by id, got {shown(listed)}")
    for index in listed:
        if not (isinstance(index, int) or (index.isdecimal() and len(index) < 10)):
            raise ValueError(f"{name} must have ids as keys, got {shown(index)}")
    return sorted((int(index), added_token(token, f"{name}[{index}]")) for index, token in listed.items())


def missing_tokens(backend: Tokenizer, config: JsonObject, special: Iterable[str]) -> list[AddedToken]:
    """Return what only the config knows, in the order in which it gets ids: its added tokens, then `special` ones."""
    known = backend.get_added_tokens_decoder()
    special = list(special)
    missing = []
    for index, token in _listed_tokens(config):
        if index not in known:
            token.special = token.special or token.content in special
            missing.append(token)
    contents = {token.content for token in [*known.values(), *missing]}
    for content in special:
        if content not in contents:
            contents.add(content)
            missing.append(AddedToken(content, special=True, normalized=False))
    return missing


def added_token(token: object, name: str) -> AddedToken:
    """Return a token of a config: a string, or a dict with the fields of an AddedToken. Errors say its `name`."""
    if isinstance(token, AddedToken):
        return token
    content = token.get("content", "") if isinstance(token, dict) else token
    if isinstance(content, str) and len(content) > MAX_TOKEN:
        raise ValueError(f"{name}: the content has {len(content)} characters; a token may have {MAX_TOKEN}")
    if isinstance(token, str):
        return AddedToken(token, special=True, normalized=False)
    if isinstance(token, dict):
        if not isinstance(content, str):
            raise TypeError(f"{name}: content must be a string, got {shown(content)}")
        flags = {key: token[key] for key in _FLAGS if key in token}
        for key, flag in flags.items():
            if not isinstance(flag, bool):
                raise TypeError(f"{name}: {key} must be true or false, got {shown(flag)}")
        return AddedToken(**({"content": content} if "content" in token else {}), **flags)
    raise TypeError(f"{name} must be a string or an AddedToken, got {type_name(token)}")


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
