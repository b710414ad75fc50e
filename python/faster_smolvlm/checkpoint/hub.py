"""Where the files of a checkpoint come from: a directory, or a repository of the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ..quoting import shown
from ..unknown_names import check_names
from .json_files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from typing_extensions import Unpack

ADAPTER = "adapter_config.json"
DEMO = "demo"
"""The name of the checkpoint that ships inside this package."""


class HubOptions(TypedDict, total=False):
    """The keyword arguments about the hub that every `from_pretrained` takes; they mean what they mean there.

    `revision` is a branch, a tag or a commit; `token` opens private repositories (True: the one stored by the login);
    `cache_dir` is where downloaded files are kept; with `local_files_only` nothing is downloaded.
    """

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool


HUB_NAMES = tuple(HubOptions.__annotations__)


def split_hub_options(arguments: Mapping[str, object]) -> tuple[HubOptions, dict[str, Any]]:
    """Part keyword arguments in those about the hub and the others."""
    options: HubOptions = {}
    others: dict[str, Any] = dict(arguments)
    for name in HUB_NAMES:
        if name in others:
            options[name] = others.pop(name)  # type: ignore[literal-required]
    return options, others


@dataclass(frozen=True)
class Checkpoint:
    """A directory, or a hub repository at one revision, whose files are fetched one by one when they are needed."""

    name: str
    directory: Path | None
    options: HubOptions = field(default_factory=HubOptions)

    def find(self, filename: str) -> Path | None:
        """Return the local path of `filename`, or None if the checkpoint does not have it.

        Raises OSError, naming the checkpoint and what to do, if the hub is out of reach and the file is not cached.
        """
        if self.directory is not None:
            path = self.directory / filename
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            return Path(hf_hub_download(self.name, filename, **self.options))
        except HFValidationError:
            raise OSError(
                f"{shown(self.name)} is neither an existing directory nor a hub id of the form 'owner/name'. "
                "Check the path, or pass the id of a repository."
            ) from None
        except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError: offline, and the file is not cached
            if self._cached_without(filename):
                return None
            reason = "local_files_only=True" if self.options.get("local_files_only") else "no network, or offline mode"
            raise OSError(
                f"Cannot load {shown(filename)} of {shown(self.name)}: it is not in the local cache and the hub "
                f"was not reached ({reason}). "
                "Pass a local directory, or connect once so that the files are cached."
            ) from error
        except EntryNotFoundError:
            return None
        except RevisionNotFoundError:
            raise OSError(
                f"The hub repository {shown(self.name)} has no revision {shown(self.options.get('revision'))}."
            ) from None
        except RepositoryNotFoundError:
            raise OSError(
                f"{shown(self.name)} is neither an existing directory nor a repository of the hub that you may read. "
                "Check the spelling; for a private or gated repository pass token=…"
            ) from None

    def require(self, filename: str) -> Path:
        """As `find`, but a missing file is an OSError that names it."""
        path = self.find(filename)
        if path is None:
            self.refuse_adapter()
            raise OSError(f"{shown(self.name)} does not have a file named {shown(filename)}.")
        return path

    def refuse_adapter(self) -> None:
        """Raise OSError if this holds an adapter of peft, which is no model: it says which one it belongs to."""
        try:
            path = self.find(ADAPTER)
        except OSError:  # the hub is out of reach: nothing is known
            return
        if path is None:
            return
        base = read_json(path).get("base_model_name_or_path")
        raise OSError(
            f"{shown(self.name)} is an adapter of peft ({ADAPTER}), not a model. Load its base model"
            f"{f' {shown(base)}' if base else ''} and put the adapter on it: peft.PeftModel.from_pretrained(model, …). "
            "Or merge_and_unload() once and load what save_pretrained() writes."
        )

    def _cached_without(self, filename: str) -> bool:
        """Whether the repository is cached at this revision, so that an absent optional file is simply not there."""
        from huggingface_hub import try_to_load_from_cache

        def cached(name: str) -> bool:
            cache_dir, revision = self.options.get("cache_dir"), self.options.get("revision")
            return isinstance(try_to_load_from_cache(self.name, name, cache_dir=cache_dir, revision=revision), str)

        return filename != "config.json" and (cached("config.json") or cached("preprocessor_config.json"))


def checkpoint(name_or_dir: str | os.PathLike[str], **options: Unpack[HubOptions]) -> Checkpoint:
    """Resolve what `from_pretrained` was given: a directory, `"demo"` (the bundled checkpoint) or a hub id.

    Raises TypeError for a keyword argument that is none of `HubOptions`, OSError for the path of a file.
    """
    check_names(options, HUB_NAMES)
    name = os.fspath(name_or_dir)
    if os.path.isdir(name):
        return Checkpoint(name, Path(name))
    if name == DEMO:
        return Checkpoint(DEMO, Path(__file__).parents[1] / "demo")
    if os.path.exists(name):
        raise OSError(f"{shown(name)} is a file; pass the directory of the checkpoint.")
    return Checkpoint(name, None, options)
