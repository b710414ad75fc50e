"""What the three configs share: typed fields, unknown keys kept, JSON in the layout of the hub's `config.json`."""

from __future__ import annotations

import copy
import os
import types
import typing
from pathlib import Path
from typing import Any, ClassVar

from ..quoting import shown
from ..unknown_names import is_misspelt, unknown_name
from .hub import HUB_NAMES, Checkpoint, checkpoint, split_hub_options
from .json_files import JsonObject, json_text, naming_file, read_json

if typing.TYPE_CHECKING:
    from typing_extensions import Self

CONFIG_NAME = "config.json"


class PretrainedConfig:
    """Base of the configs: annotated class attributes are the typed fields and their defaults.

    Every other keyword becomes a plain attribute and is written back by `to_dict`, so nothing of a hub file is lost.
    Raises `huggingface_hub.errors.StrictDataclassFieldValidationError`, as Transformers does, if a field has the wrong
    type, and `StrictDataclassClassValidationError` if fields contradict each other.
    """

    model_type: ClassVar[str] = ""
    accepted_model_types: ClassVar[tuple[str, ...]] = ()
    runtime_attributes: ClassVar[frozenset[str]] = frozenset({"_attn_implementation"})

    dtype: str | None = None
    architectures: list[str] | None = None
    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True

    _hints: ClassVar[dict[str, object]] = {}
    _attn_implementation: str = "auto"

    def __init_subclass__(cls) -> None:
        hints = typing.get_type_hints(cls)
        fields = {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar}
        cls._hints = {name: hint for name, hint in fields.items() if name not in cls.runtime_attributes}

    def __init__(self, **values: Any) -> None:
        model_type = values.pop("model_type", None)
        if model_type is not None and model_type not in (self.model_type, *self.accepted_model_types):
            raise ValueError(
                f"{type(self).__name__} got model_type {shown(model_type)}; it describes models of type "
                f"{' or '.join(map(repr, (self.model_type, *self.accepted_model_types)))}."
            )
        legacy_dtype = values.pop("torch_dtype", None)
        if values.get("dtype") is None and legacy_dtype is not None:
            values["dtype"] = legacy_dtype
        self._prepare(values)
        for name in self._hints:
            setattr(self, name, values.pop(name, getattr(type(self), name)))
        for name, value in values.items():
            setattr(self, name, value)
        self.validate()

    def _prepare(self, values: JsonObject) -> None:
        """Rewrite legacy keys of `values` in place, before the fields are set."""

    def validate(self) -> None:
        """Check that the fields fit together; called once after construction."""
        for name, hint in self._hints.items():
            value = getattr(self, name)
            if _is_size(name, hint) and isinstance(value, int) and value < 1:
                raise _field_error(name, ValueError(f"Field {shown(name)} expected a positive integer, got {value}"))

    def __setattr__(self, name: str, value: object) -> None:
        if name == "dtype" and value is not None:
            value = str(value).removeprefix("torch.")
        hint = self._hints.get(name)
        if hint is not None and not _matches(value, hint):
            expected = hint.__name__ if isinstance(hint, type) else str(hint)
            message = f"Field {shown(name)} expected {expected}, got {type(value).__name__} (value: {shown(value)})"
            raise _field_error(name, TypeError(message))
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def to_dict(self) -> JsonObject:
        """Return every field and every kept key as plain Python values, nested configs as dicts."""
        values = {name: value for name, value in vars(self).items() if name not in self.runtime_attributes}
        values = {
            name: v.to_dict() if isinstance(v, PretrainedConfig) else copy.deepcopy(v) for name, v in values.items()
        }
        return {"model_type": self.model_type, **values}

    def to_json_string(self) -> str:
        """Return the text of `config.json`: two spaces of indent, sorted keys, a newline at the end."""
        return json_text(self._strip(self.to_dict()))

    def _strip(self, values: JsonObject) -> JsonObject:
        """Leave out of a file what every reader assumes anyway."""
        for name in PretrainedConfig.__annotations__.keys() & values.keys():
            if values[name] == getattr(PretrainedConfig, name):
                del values[name]
        for name, value in vars(self).items():
            if isinstance(value, PretrainedConfig):
                value._strip(values[name])
        return values

    @classmethod
    def from_dict(cls, values: JsonObject, **overrides: object) -> Self:
        """Build from the content of a `config.json`; `overrides` win over it. The dict is not changed.

        Raises TypeError for an override that looks like a misspelt field; other unknown ones are kept as attributes.
        """
        for name in overrides:
            if name not in values and name not in cls._hints and is_misspelt(name, cls._hints):
                raise unknown_name(name, cls._hints)
        return cls(**{**copy.deepcopy(values), **overrides})

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Self:
        """Build from a JSON file. Raises OSError, naming the file, if it is no JSON object."""
        with naming_file(Path(path)):
            return cls.from_dict(read_json(Path(path)))

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str],
        **options: object,
    ) -> Self:
        """Read `config.json` of a directory, of a hub repository or of "demo".

        `options` are those of `HubOptions`; the others set single fields, and win over the file.
        Raises OSError if there is no such file or it is no JSON object, ValueError for another model type.
        """
        hub_options, overrides = split_hub_options(options)
        for name in overrides:
            if is_misspelt(name, HUB_NAMES):
                raise unknown_name(name, HUB_NAMES)
        return cls.from_checkpoint(checkpoint(name_or_dir, **hub_options), **overrides)

    @classmethod
    def from_checkpoint(cls, files: Checkpoint, **overrides: object) -> Self:
        """As `from_pretrained`, for a checkpoint that is resolved already."""
        path = files.require(CONFIG_NAME)
        with naming_file(path):
            return cls.from_dict(read_json(path), **overrides)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write `config.json` into `save_directory`, which is made if it does not exist."""
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / CONFIG_NAME).write_text(self.to_json_string(), encoding="utf-8")


def contradiction(message: str) -> Exception:
    """Return the error for fields that do not fit together, of the type that Transformers raises."""
    from huggingface_hub.errors import StrictDataclassClassValidationError

    return StrictDataclassClassValidationError("validate_architecture", ValueError(message))


def _field_error(name: str, cause: Exception) -> Exception:
    from huggingface_hub.errors import StrictDataclassFieldValidationError

    return StrictDataclassFieldValidationError(name, cause)


def _is_size(name: str, hint: object) -> bool:
    return hint in (int, int | None) and not name.endswith("_id")


# huggingface_hub's strict dataclasses check the same, but importing them takes three times as long as this module
# (173 ms of processor time against 56 on a slow machine), and a model in a directory needs no huggingface_hub.
def _matches(value: object, hint: object) -> bool:
    """Whether `value` is of the annotated type. A bool is no int, an int is no float: as in Transformers."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_matches(value, option) for option in arguments)
    if origin is list:
        return isinstance(value, list) and all(_matches(item, arguments[0]) for item in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(arguments) and all(map(_matches, value, arguments))
    if origin is dict:
        return isinstance(value, dict)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)
