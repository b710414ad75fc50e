"""Settings in files: what an image and a video processor read and write, in the same way."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, TypeVar, cast, overload

import numpy as np

from ..checkpoint.hub import HUB_NAMES, checkpoint, split_hub_options
from ..checkpoint.json_files import JsonObject, json_text, naming_file, read_json
from ..quoting import shown
from ..unknown_names import is_misspelt, unknown_name
from .call_settings import Settings
from .settings import IGNORED, OF_CALLER, Reader, names
from .size import SizeDict

Self = TypeVar("Self", bound="SettingsFiles")
_LOG = logging.getLogger(__name__)

PROCESSOR_FILE = "processor_config.json"
# Names of classes, which files hold beside the settings.
CLASS_NAMES = ("feature_extractor_type", "processor_class", "image_processor_type", "video_processor_type")


class SettingsFiles:
    """A processor whose attributes are its settings.

    A name that is no setting is refused with a TypeError by `from_pretrained` and `from_dict`. The constructor, as in
    Transformers, keeps it as an attribute and writes it to files, but refuses what looks like a misspelt setting.
    """

    _reader: ClassVar[Reader]
    _part: ClassVar[str]
    """The entry of processor_config.json that holds the settings."""
    _files: ClassVar[tuple[str, ...]]
    """Other files that hold them; the first one is written, the last one has to be there if no other is."""
    _also_read: ClassVar[tuple[str, ...]] = ()
    """Names that the constructor reads besides the settings."""

    def __init__(self, **kwargs: object) -> None:
        raise NotImplementedError

    def to_dict(self) -> JsonObject:
        """Return the settings as a dict that JSON can hold."""
        settings = {name: value for name, value in vars(self).items() if name not in OF_CALLER}
        kept: JsonObject = {f"{self._part}_type": type(self).__name__.removesuffix("Pil")}
        for name, value in copy.deepcopy(settings).items():
            # None is written only if it differs from the default of the class.
            if value is not None or getattr(type(self), name, None) is not None:
                kept[name] = value.to_dict() if isinstance(value, SizeDict) else value
        return kept

    def to_json_string(self) -> str:
        """Return the settings as JSON."""
        settings = self.to_dict()
        return json_text({name: _as_list(value) for name, value in settings.items()})

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Write the settings as JSON."""
        Path(json_file_path).write_text(self.to_json_string(), encoding="utf-8")

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write the settings into a directory, which is made if needed; return the path of the file in a list.

        The file is `preprocessor_config.json` for pictures, `video_preprocessor_config.json` for clips. Raises
        NotADirectoryError if the path is that of a file.
        """
        directory = Path(save_directory)
        if directory.is_file():
            raise NotADirectoryError(f"Provided path ({directory}) should be a directory, not a file")
        directory.mkdir(parents=True, exist_ok=True)
        self.to_json_file(directory / self._files[0])
        return [os.path.join(save_directory, self._files[0])]

    @overload
    @classmethod
    def from_pretrained(
        cls: type[Self],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[False] = False,
        **kwargs: object,
    ) -> Self: ...
    @overload
    @classmethod
    def from_pretrained(
        cls: type[Self],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[True],
        **kwargs: object,
    ) -> tuple[Self, JsonObject]: ...
    @classmethod
    def from_pretrained(
        cls: type[Self], pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: object
    ) -> Self | tuple[Self, JsonObject]:
        """Load from a directory, a JSON file or a hub id; keyword arguments that are settings override the file.

        The entry `image_processor` or `video_processor` of processor_config.json is read, without it
        video_preprocessor_config.json (clips only), without that preprocessor_config.json. `revision`, `token`,
        `cache_dir`, `local_files_only` and `subfolder` locate the files. Raises OSError if the files are missing,
        TypeError for other arguments; with `return_unused_kwargs=True` those are returned beside the processor.
        """
        path, settings, rest = cls._find(os.fspath(pretrained_model_name_or_path), kwargs)
        return cls._made(settings, rest, path)

    @classmethod
    def from_dict(cls: type[Self], settings: Mapping[str, object], **kwargs: object) -> Self | tuple[Self, JsonObject]:
        """Make a processor from the settings of a file; keyword arguments that are settings override them.

        What else the file holds is kept as attributes. Raises TypeError for other arguments; with
        `return_unused_kwargs=True` those are returned beside the processor.
        """
        return cls._made(settings, kwargs, None)

    @classmethod
    def _made(
        cls: type[Self], settings: Mapping[str, object], kwargs: Settings, path: Path | None
    ) -> Self | tuple[Self, JsonObject]:
        """As `from_dict`, for settings that were read from a file."""
        return_unused = kwargs.pop("return_unused_kwargs", False)
        known = (*names(cls._reader), *cls._also_read)
        unused = {name: value for name, value in kwargs.items() if name not in known}
        if unused and not return_unused:
            raise unknown_name(next(iter(unused)), (*known, *HUB_NAMES))
        held = {name: value for name, value in settings.items() if name not in OF_CALLER}
        if len(held) < len(settings):
            _LOG.warning("No file can set %s; ignored.", ", ".join(sorted(set(settings) - set(held))))
        foreign = {name: held.pop(name) for name in list(held) if cls._is_foreign(name)}
        with naming_file(path):
            processor = cls(**{**held, **{name: value for name, value in kwargs.items() if name not in unused}})
        vars(processor).update(foreign)
        return (processor, unused) if return_unused else processor

    @classmethod
    def from_json_file(cls: type[Self], json_file: str | os.PathLike[str]) -> Self:
        """Make a processor from a JSON file."""
        return cast("Self", cls._made(read_json(Path(json_file)), {}, Path(json_file)))

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    @classmethod
    def _is_foreign(cls, name: str) -> bool:
        """Whether the constructor does nothing with a name but keep it."""
        return name not in (*names(cls._reader), *cls._also_read, *CLASS_NAMES)

    def _keep_foreign(self, values: Mapping[str, object]) -> None:
        """Keep what is no setting as attributes; raise TypeError for what looks like a misspelt one."""
        known = names(self._reader)
        for name in values:
            if self._is_foreign(name) and is_misspelt(name, known):
                raise unknown_name(name, known)
        vars(self).update({name: value for name, value in values.items() if name not in CLASS_NAMES})

    @classmethod
    def _read(cls, name: str, kwargs: Mapping[str, object]) -> tuple[JsonObject, Settings]:
        """Return the settings in the files of a checkpoint, and the keyword arguments that are not about files."""
        return cls._find(name, kwargs)[1:]

    @classmethod
    def _find(cls, name: str, kwargs: Mapping[str, object]) -> tuple[Path, JsonObject, Settings]:
        """As `_read`, with the path of the file first."""
        hub_options, rest = split_hub_options({key: value for key, value in kwargs.items() if key not in IGNORED})
        folder, own_file = rest.pop("subfolder", ""), rest.pop(f"{cls._part}_filename", None)
        if os.path.isfile(name):
            return Path(name), read_json(Path(name)), rest
        source = checkpoint(name, **hub_options)
        path = source.find(os.path.join(folder, PROCESSOR_FILE))
        if path is not None:
            settings = read_json(path).get(cls._part)
            if settings is not None and not isinstance(settings, dict):
                raise OSError(f"'{cls._part}' of {shown(str(path))} must be an object, got {shown(settings)}.")
            if settings is not None:
                return path, settings, rest
        *optional, last = (own_file,) if own_file else cls._files
        found = next(filter(None, (source.find(os.path.join(folder, file)) for file in optional)), None)
        path = found or source.require(os.path.join(folder, last))
        return path, read_json(path), rest


def _as_list(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value
