"""Transformers' own classes, with the pixels of its SmolVLM and Idefics3 processors made by the Rust core.

`accelerate(processor_or_model)` changes an object in place: it stays what it was to `isinstance`, keeps its settings
and reads them at every call. `enable()` does so for everything that the `from_pretrained` of Transformers' classes
returns, `disable()` stops that; ``python -m faster_smolvlm.patch script.py`` does it for a script that one cannot edit.

`ConfigFilesCallback` is for the `Trainer` of a model of this package.

The classes of this module have the names of those that they extend (which ones there are depends on the version of
Transformers). What they save names Transformers' class, so that either side loads it. What cannot be accelerated is
left to Transformers; the logger ``faster_smolvlm`` warns of it once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inplace import accelerate
    from .patching import disable, enable, is_enabled
    from .training import ConfigFilesCallback

_HOME = {
    "ConfigFilesCallback": "training",
    "accelerate": "inplace",
    "disable": "patching",
    "enable": "patching",
    "is_enabled": "patching",
}

__all__ = ["ConfigFilesCallback", "accelerate", "disable", "enable", "is_enabled"]


def __getattr__(name: str) -> object:
    if name in _HOME:
        found: object = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        return found
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .classes import accelerated_class

    return accelerated_class(name)
