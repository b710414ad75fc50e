"""The torch modules whose computation the native engine has, with the `forward` that defines it.

The classes of the model enter themselves: `known_to_native` decorates them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=type[nn.Module])

_FORWARDS: dict[type[nn.Module], Callable[..., object]] = {
    kind: kind.forward for kind in (nn.Linear, nn.Conv2d, nn.Embedding, nn.ModuleList, nn.LayerNorm)
}


def known_to_native(kind: ModuleT) -> ModuleT:
    """Enter a class whose `forward`, as it is now, the native engine computes; for use as a decorator."""
    _FORWARDS[kind] = kind.forward
    return kind


def is_known(kind: type[nn.Module]) -> bool:
    """Whether the native engine computes what `kind.forward` does; subclasses and patched classes are others."""
    return _FORWARDS.get(kind) is kind.forward
