"""Which versions of Transformers this was tested with, and the error if another one's API does not fit."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

TESTED = ("4.57", "5.3", "5.23", "5.24")


class UnsupportedTransformersError(ImportError):
    """The installed Transformers has another API than the versions that this package was tested with."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"faster_smolvlm.integrations.transformers was tested with Transformers {', '.join(TESTED)}; {version()} "
            f"is installed, and {problem}. Install a tested version, or use the classes of faster_smolvlm itself. "
            "Nothing was changed."
        )


class NotAcceleratedError(AttributeError):
    """A class of Transformers that is left as it is, and why."""


def version() -> str:
    """Return the installed version of Transformers."""
    return str(_transformers().__version__)


def is_tested() -> bool:
    """Whether the installed version is one of those tested."""
    found = re.match(r"\d+\.\d+", version())
    return found is not None and found.group() in TESTED


def get(name: str) -> type | None:
    """Return a public class of Transformers; None if this version, or this installation, has none of that name."""
    try:
        found: type = getattr(_transformers(), name)
    except (AttributeError, ImportError):
        return None
    return found


def is_listed(name: str) -> bool:
    """Whether a name is public here, and not only kept for those who still use it."""
    return name in dir(_transformers())


def need(name: str) -> type:
    """Return a public class of Transformers that every supported version has."""
    found = get(name)
    if found is None:
        raise UnsupportedTransformersError(f"it has no {name}")
    return found


def _transformers() -> ModuleType:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            "faster_smolvlm.integrations.transformers needs Transformers: pip install 'faster-smolvlm[transformers]'"
        ) from error
