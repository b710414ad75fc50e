"""Where the files of a checkpoint come from: a directory, or a repository of the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEMO = "demo"
"""The name of the checkpoint that ships inside this package."""


@dataclass(frozen=True)
class Checkpoint:
    """A directory, or a hub repository at one revision, whose files are fetched one by one when asked for."""

    name: str
    directory: Path | None
    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | None = None
    local_files_only: bool = False

    def find(self, filename: str) -> Path | None:
        """Return the local path of `filename`, or None where the checkpoint does not have it.

        Raises OSError, naming the checkpoint and what to do, where the hub is out of reach and the file is not cached.
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
            return Path(
                hf_hub_download(
                    self.name,
                    filename,
                    revision=self.revision,
                    token=self.token,
                    cache_dir=self.cache_dir,
                    local_files_only=self.local_files_only,
                )
            )
        except HFValidationError:
            raise OSError(
                f"{self.name!r} is neither an existing directory nor a hub id of the form 'owner/name'. "
                "Check the path, or pass the id of a repository."
            ) from None
        except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError: offline, and the file is not cached
            if self._cached_without(filename):
                return None
            raise OSError(
                f"Cannot load {filename!r} of {self.name!r}: it is not in the local cache and the hub was not reached "
                f"({'local_files_only=True' if self.local_files_only else 'no network, or offline mode'}). "
                "Pass a local directory, or connect once so that the files are cached."
            ) from error
        except EntryNotFoundError:
            return None
        except RevisionNotFoundError:
            raise OSError(f"The hub repository {self.name!r} has no revision {self.revision!r}.") from None
        except RepositoryNotFoundError:
            raise OSError(
                f"{self.name!r} is neither an existing directory nor a repository of the hub that you may read. "
                "Check the spelling; for a private or gated repository pass token=…"
            ) from None

    def require(self, filename: str) -> Path:
        """As `find`, but a missing file is an OSError that names it."""
        path = self.find(filename)
        if path is None:
            raise OSError(f"{self.name!r} does not have a file named {filename!r}.")
        return path

    def _cached_without(self, filename: str) -> bool:
        """Whether the repository is cached at this revision, so that an absent optional file is simply not there."""
        from huggingface_hub import try_to_load_from_cache

        def cached(name: str) -> bool:
            found = try_to_load_from_cache(self.name, name, cache_dir=self.cache_dir, revision=self.revision)
            return isinstance(found, str)

        return filename != "config.json" and (cached("config.json") or cached("preprocessor_config.json"))


def checkpoint(
    name_or_dir: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    **unused: Any,
) -> Checkpoint:
    """Resolve what `from_pretrained` was given: a directory, `"demo"` (the bundled checkpoint) or a hub id."""
    if unused:
        raise TypeError(f"unexpected keyword argument(s): {', '.join(sorted(unused))}")
    name = os.fspath(name_or_dir)
    if os.path.isdir(name):
        return Checkpoint(name, Path(name))
    if name == DEMO:
        return Checkpoint(DEMO, Path(__file__).parents[1] / "demo")
    if os.path.exists(name):
        raise OSError(f"{name!r} is a file; pass the directory of the checkpoint.")
    return Checkpoint(
        name,
        None,
        revision=revision,
        token=token,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        local_files_only=local_files_only,
    )
