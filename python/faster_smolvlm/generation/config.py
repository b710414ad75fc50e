"""`GenerationConfig`: the settings of `generate`, from arguments, `generation_config.json`, or the model's config."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..checkpoint.hub import HubOptions, checkpoint
from ..checkpoint.json_files import json_text, read_json
from ..quoting import shown
from ..unknown_names import UnknownSettingError, check_names
from .caller import warn_caller
from .values import Check, count, number, texts, token_id, token_ids

if TYPE_CHECKING:
    from typing_extensions import Unpack

FILE_NAME = "generation_config.json"

# Settings of Transformers that this package does not have, with the values that mean "off"; others are an error.
_OFF: dict[str, tuple[object, ...]] = {
    "assistant_early_exit": (None,),
    "assistant_ensemble_weight": (None,),
    "assistant_model": (None,),
    "bad_words_ids": (None,),
    "begin_suppress_tokens": (None,),
    "cache_config": (None,),
    "cache_implementation": (None, "dynamic", "static"),  # one preallocated cache serves both
    "continuous_batching_config": (None,),
    "custom_generate": (None,),
    "diversity_penalty": (None, 0.0),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "exponential_decay_length_penalty": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "guidance_scale": (None, 1.0),
    "is_assistant": (None, False),
    "low_memory": (None, False),
    "negative_prompt_attention_mask": (None,),
    "negative_prompt_ids": (None,),
    "num_beam_groups": (None, 1),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
    "penalty_alpha": (None,),
    "prefix_allowed_tokens_fn": (None,),
    "remove_invalid_values": (None, False),
    "renormalize_logits": (None, False),
    "sequence_bias": (None,),
    "speculation_type": (None,),
    "suppress_tokens": (None,),
    "synced_gpus": (None, False),
    "token_healing": (None, False),
    "top_h": (None,),
    "typical_p": (None, 1.0),
    "use_mtp": (None, False),
    "watermarking_config": (None,),
}
# Settings of Transformers that change nothing about the tokens of this model.
_WITHOUT_EFFECT = frozenset(
    {
        "_from_model_config",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "compile_config",
        "decoder_start_token_id",
        "disable_compile",
        "max_cache_len",
        "max_matching_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "target_lookbehind",
        "transformers_version",
    }
)


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
    `extra` keeps the entries of a file that this package does not know, so that they are written back.
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
    prompt_lookup_num_tokens: int | None = field(default=None, metadata=_setting(check=count(0)))
    num_return_sequences: int | None = field(default=None, metadata=_setting(1, check=count(1)))
    output_scores: bool | None = field(default=None, metadata=_setting(False))
    output_logits: bool | None = field(default=None, metadata=_setting(False))
    return_dict_in_generate: bool | None = field(default=None, metadata=_setting(False))
    pad_token_id: int | None = field(default=None, metadata=_setting(check=token_id))
    bos_token_id: int | None = field(default=None, metadata=_setting(check=token_id))
    eos_token_id: int | list[int] | None = field(default=None, metadata=_setting(check=token_ids))
    extra: dict[str, object] = field(default_factory=dict)

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
        return cls.from_dict(read_json(path))

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
        values = {name: value for name, value in asdict(self).items() if name != "extra" and value is not None}
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
        return replace(self, **missing, extra={**other.extra, **self.extra})

    def validate(self) -> None:
        """Check the settings, and make Python's own of numbers of NumPy and torch.

        Raises ValueError, or NotImplementedError for what this package does not have.
        """
        for name, value in self.extra.items():
            if name in _OFF and value not in _OFF[name]:
                raise NotImplementedError(
                    f"generate(): {name}={shown(value)} is not supported. Leave it out, or pass a callable in "
                    "logits_processor= or stopping_criteria= that does the same."
                )
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, check(name, value))
        beams, copies = self.num_beams or 1, self.num_return_sequences or 1
        if beams == 1 and copies > 1 and not self.do_sample:
            raise ValueError(
                "Greedy decoding (do_sample=False, num_beams=1) gives one answer; it does not support "
                f"num_return_sequences={copies}. Pass do_sample=True."
            )
        if 1 < beams < copies:
            raise ValueError(f"num_return_sequences ({copies}) has to be smaller or equal to num_beams ({beams}).")


_FIELDS = tuple(entry for entry in fields(GenerationConfig) if entry.name != "extra")
SETTINGS = frozenset(entry.name for entry in _FIELDS)
ARGUMENTS = SETTINGS | _OFF.keys() | _WITHOUT_EFFECT
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
    config = config.filled_from(model_default).filled_from(_DEFAULTS)
    config.extra |= {name: value for name, value in arguments.items() if name not in SETTINGS}
    for name in SETTINGS & arguments.keys():
        setattr(config, name, arguments[name])  # a None that is written out turns the setting off
    config.validate()
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
