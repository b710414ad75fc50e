"""`GenerationConfig`: the settings of `generate`, from arguments, `generation_config.json`, or the model's config."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..checkpoint.hub import HubOptions, checkpoint
from ..checkpoint.json_files import json_text, read_json
from ..integers import as_int
from ..quoting import shown
from ..unknown_names import UnknownSettingError, check_names
from .caller import warn_caller
from .unsupported import OFF, WITHOUT_EFFECT, idle_settings, refuse
from .values import Check, bad_words, count, number, suppressed, texts, token_id, token_ids

if TYPE_CHECKING:
    from typing_extensions import Unpack

FILE_NAME = "generation_config.json"


def _setting(default: object = None, *, check: Check | None = None, drawing: bool = False) -> dict[str, object]:
    """Describe a setting: the value that a call takes if nobody sets it, and what checks a value.

    Settings for `drawing` count with `do_sample` only; `SmolVLM` draws if one of them is set.
    """
    return {"default": default, "check": check, "drawing": drawing}


@dataclass
class GenerationConfig:
    """Settings of `generate`; None means not set. Names, meanings and defaults are those of Transformers.

    `prompt_lookup_num_tokens` is how many draft tokens the native engine takes at most from earlier text in a greedy
    step, 0 for none; it changes no token, and the torch engine does without.
    `extra` keeps the entries of a file that this package does not know, so that they are written back; `file` is its
    path, "" if there is none.
    """

    _from_model_config: ClassVar[bool] = False  # Transformers' Seq2SeqTrainer reads it after each `generate`

    max_length: int | None = field(default=None, metadata=_setting(check=count(0, floats=True)))
    max_new_tokens: int | None = field(default=None, metadata=_setting(check=count(1, floats=True)))
    min_length: int | None = field(default=None, metadata=_setting(0, check=count(0)))
    min_new_tokens: int | None = field(default=None, metadata=_setting(check=count(0)))
    max_time: float | None = field(default=None, metadata=_setting(check=number))
    stop_strings: str | list[str] | None = field(default=None, metadata=_setting(check=texts))
    do_sample: bool | None = field(default=None, metadata=_setting(False))
    num_beams: int | None = field(default=None, metadata=_setting(1, check=count(1)))
    early_stopping: bool | str | None = field(default=None, metadata=_setting(False))
    length_penalty: float | None = field(default=None, metadata=_setting(1.0, check=number))
    use_cache: bool | None = field(default=None, metadata=_setting(True))
    temperature: float | None = field(default=None, metadata=_setting(1.0, drawing=True))
    top_k: int | None = field(default=None, metadata=_setting(50, check=count(0), drawing=True))
    top_p: float | None = field(default=None, metadata=_setting(1.0, drawing=True))
    min_p: float | None = field(default=None, metadata=_setting(drawing=True))
    repetition_penalty: float | None = field(default=None, metadata=_setting(1.0))
    no_repeat_ngram_size: int | None = field(default=None, metadata=_setting(0, check=count(0)))
    bad_words_ids: list[list[int]] | None = field(default=None, metadata=_setting(check=bad_words))
    suppress_tokens: list[int] | None = field(default=None, metadata=_setting(check=suppressed))
    begin_suppress_tokens: list[int] | None = field(default=None, metadata=_setting(check=suppressed))
    prompt_lookup_num_tokens: int | None = field(default=None, metadata=_setting(check=count(0)))
    num_return_sequences: int | None = field(default=None, metadata=_setting(1, check=count(1)))
    output_scores: bool | None = field(default=None, metadata=_setting(False))
    output_logits: bool | None = field(default=None, metadata=_setting(False))
    return_dict_in_generate: bool | None = field(default=None, metadata=_setting(False))
    pad_token_id: int | None = field(default=None, metadata=_setting(check=token_id))
    bos_token_id: int | None = field(default=None, metadata=_setting(check=token_id))
    eos_token_id: int | list[int] | None = field(default=None, metadata=_setting(check=token_ids))
    extra: dict[str, object] = field(default_factory=dict)
    file: str = field(default="", compare=False, repr=False)

    @property
    def eos_ids(self) -> list[int]:
        """The end-of-sequence ids as a list, empty if none is set."""
        if self.eos_token_id is None:
            return []
        found = token_ids("eos_token_id", self.eos_token_id)
        return [found] if isinstance(found, int) else found

    @property
    def pad_id(self) -> int | None:
        """The id that finished rows are filled with: `pad_token_id`, else the first end-of-sequence id, else None."""
        return self.pad_token_id if self.pad_token_id is not None else next(iter(self.eos_ids), None)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> GenerationConfig:
        """Build from the entries of a `generation_config.json`; those not known are kept in `extra`."""
        config = cls(extra={name: value for name, value in values.items() if name not in SETTINGS})
        for name in SETTINGS & values.keys():
            setattr(config, name, values[name])
        return config

    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | os.PathLike[str], **hub_options: Unpack[HubOptions]
    ) -> GenerationConfig:
        """Read `generation_config.json` of a directory or a hub repository; OSError, naming it, if it has none."""
        return cls.from_file(checkpoint(name_or_dir, **hub_options).require(FILE_NAME))

    @classmethod
    def from_file(cls, path: Path) -> GenerationConfig:
        """Read one JSON file; OSError if it does not hold a JSON object."""
        config = cls.from_dict(read_json(path))
        config.file = str(path)
        return config

    @classmethod
    def from_model_config(cls, config: object) -> GenerationConfig:
        """Take the special token ids, for a checkpoint without a `generation_config.json`.

        As in Transformers, an id beside `text_config` wins over the one in it, and no other setting that changes tokens
        is read from a `config.json`.
        """
        text = getattr(config, "text_config", config)
        ids = {
            name: next((found for part in (config, text) if (found := getattr(part, name, None)) is not None), None)
            for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        }
        return cls.from_dict(ids)

    def to_dict(self) -> dict[str, object]:
        """Return the entries that are set."""
        values = {name: value for name, value in asdict(self).items() if name in SETTINGS and value is not None}
        return {**self.extra, **values}

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `generation_config.json` into `directory`, which is made if it is missing."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json_text(self.to_dict())
        (folder / FILE_NAME).write_text(text, encoding="utf-8")

    def update(self, defaults_only: bool = False, **values: object) -> dict[str, object]:
        """Set the given settings, with `defaults_only` those that are not set; return the entries that are not used."""
        used = {name for name in SETTINGS & values.keys() if not defaults_only or getattr(self, name) is None}
        for name in used:
            setattr(self, name, values[name])
        return {name: value for name, value in values.items() if name not in used}

    @staticmethod
    def _get_default_generation_params() -> dict[str, object]:
        """Return what counts if nobody sets it, 20 for `max_length`; Transformers' Seq2SeqTrainer calls it."""
        defaults = {entry.name: entry.metadata["default"] for entry in _FIELDS}
        return {"max_length": 20} | {name: value for name, value in defaults.items() if value is not None}

    def filled_from(self, other: GenerationConfig) -> GenerationConfig:
        """Return a copy in which what is not set here is taken from `other`."""
        missing = {name: getattr(other, name) for name in SETTINGS if getattr(self, name) is None}
        extra = {name: value for name, value in self.extra.items() if value is not None}
        return replace(self, **missing, extra={**other.extra, **extra})

    def validate(self, by_caller: Container[str] = (), file: str = "") -> None:
        """Check the settings, and make Python's own of numbers of NumPy and torch.

        Those that are not `by_caller` come from `file`, if there is one, and errors say so. Raises ValueError, or
        TypeError as Transformers does, or NotImplementedError for what this package does not have.
        """
        idle = idle_settings(
            draws=bool(self.do_sample),
            beams=as_int(self.num_beams) or 1,
            returns_all=bool(self.return_dict_in_generate),
        )
        refuse(self.extra, by_caller=by_caller, file=file, idle=idle)
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is None:
                continue
            try:
                setattr(self, name, check(name, value))
            except (ValueError, TypeError) as error:
                if name in by_caller or not file:
                    raise
                raise type(error)(f"{error} It is from {shown(file)}; pass another value for a call.") from None
        beams, copies = self.num_beams or 1, self.num_return_sequences or 1
        if beams == 1 and copies > 1 and not self.do_sample:
            raise ValueError(
                "Greedy decoding (do_sample=False, num_beams=1) gives one answer; it does not support "
                f"num_return_sequences={copies}. Pass do_sample=True."
            )
        if 1 < beams < copies:
            raise ValueError(f"num_return_sequences ({copies}) has to be smaller or equal to num_beams ({beams}).")


_FIELDS = tuple(entry for entry in fields(GenerationConfig) if "default" in entry.metadata)
SETTINGS = frozenset(entry.name for entry in _FIELDS)
ARGUMENTS = SETTINGS | OFF.keys() | WITHOUT_EFFECT
"""What a call takes: the settings, and those of Transformers that can only be off or change nothing."""
_CHECKS: dict[str, Check] = {e.name: e.metadata["check"] for e in _FIELDS if e.metadata.get("check") is not None}
_DRAWING = tuple(entry.name for entry in _FIELDS if entry.metadata.get("drawing"))
_DEFAULTS = GenerationConfig()
for _entry in _FIELDS:
    setattr(_DEFAULTS, _entry.name, _entry.metadata.get("default"))
DEFAULT_NEW_TOKENS = 20


def asks_to_draw(settings: Mapping[str, object]) -> bool:
    """Whether one of `settings` counts only if tokens are drawn, such as a temperature."""
    return any(settings.get(name) is not None for name in _DRAWING)


def resolve(
    arguments: Mapping[str, object],
    given: object,
    model_default: GenerationConfig,
    *,
    also_named: Iterable[str] = (),
) -> GenerationConfig:
    """Merge the settings of one call: `arguments` win over the config `given`, over the model's own, over the defaults.

    `given` is a `GenerationConfig`, one of Transformers, a mapping or None. Raises `UnknownSettingError` for an
    argument that nobody knows; it may suggest one of `also_named`.
    """
    check_names(arguments, ARGUMENTS, also_named=also_named, error=UnknownSettingError)
    config = GenerationConfig()
    if given is not None:
        config = config.filled_from(given if isinstance(given, GenerationConfig) else _from_foreign(given))
    by_caller = {*config.to_dict(), *arguments}
    config = config.filled_from(model_default).filled_from(_DEFAULTS)
    config.extra |= {name: value for name, value in arguments.items() if name not in SETTINGS}
    for name in SETTINGS & arguments.keys():
        setattr(config, name, arguments[name])  # a None that is written out turns the setting off
    config.validate(by_caller, model_default.file)
    if not config.do_sample:
        unused = [name for name in _DRAWING if arguments.get(name) not in (None, 1.0)]
        if unused:
            warn_caller(f"{', '.join(unused)} only count with do_sample=True; this call is greedy.")
    return config


def _from_foreign(given: object) -> GenerationConfig:
    if isinstance(given, Mapping):
        return GenerationConfig.from_dict(given)
    if not hasattr(given, "to_dict"):
        raise TypeError(f"generation_config has to be a GenerationConfig, not {type(given).__name__}")
    return GenerationConfig.from_dict(given.to_dict())


def lengths(config: GenerationConfig, *, prompt_length: int) -> tuple[int, int]:
    """Return the largest and the smallest number of tokens to generate after a prompt of `prompt_length` tokens.

    `max_new_tokens` wins over `max_length`; without either a call makes 20 tokens, as in Transformers, and warns.
    Raises ValueError if the prompt is as long as `max_length` allows.
    """
    if config.max_new_tokens is not None:
        largest = config.max_new_tokens
    elif config.max_length is not None:
        largest = config.max_length - prompt_length
        if largest <= 0:
            raise ValueError(
                f"The prompt has {prompt_length} tokens, but max_length is {config.max_length}, which counts it in. "
                "Increase max_length, or better, set max_new_tokens."
            )
    else:
        largest = DEFAULT_NEW_TOKENS
        warn_caller(f"max_new_tokens is not set, so at most {largest} tokens are generated.")
    smallest = config.min_new_tokens if config.min_new_tokens is not None else (config.min_length or 0) - prompt_length
    return largest, max(smallest, 0)
