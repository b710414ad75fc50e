"""The torch modules whose computation the other engines have, with the `forward` that defines it.

The classes of the model enter themselves: `known_to_native` decorates them. `why_not_as_built` is what the native
engine and the decode graph ask at every call, before either of them stands in for the modules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

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


class Modules(Protocol):
    """What is asked of a model, an `nn.Module`."""

    @property
    def training(self) -> bool:
        """Whether it is in training mode."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Go through the weights."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Go through the modules, the model itself first."""


def why_not_as_built(model: Modules, device: str, attention: Collection[str]) -> str:
    """Return what makes a call of `model` other than what the classes of its modules say; "" if nothing does.

    `device` is the type of the device that it is to run on, and `attention` the values of `attn_implementation` that
    leave open what computes. Looks at modules and parameters, and at what torch does to all of them in this thread.
    """
    if model.training:
        return "the model is in training mode"
    for parameter in model.parameters():
        if parameter.device.type != device:
            return f"a parameter is on {parameter.device}"
        if type(parameter.data) is not Tensor:
            return f"a parameter is a {type(parameter.data).__name__}"
    if torch.is_autocast_enabled(device):
        return "autocast is on"
    if torch.compiler.is_compiling():
        return "torch.compile is tracing"
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "there are forward hooks for all modules"
    return _why_not_modules(model, attention)


def _why_not_modules(model: Modules, attention: Collection[str]) -> str:
    for name, module in model.named_modules():
        which = f"module {name!r}" if name else "the model"
        kind = type(module)
        if not is_known(kind):
            return f"{which} is a {kind.__name__}, which only torch can call"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{which} has forward hooks"
        if "forward" in vars(module):
            return f"{which} has a forward of its own"
        if getattr(module, "_compiled_call_impl", None) is not None:
            return f"{which} is compiled"
        implementation = getattr(getattr(module, "config", None), "_attn_implementation", "auto")
        if implementation not in attention:
            return f"attn_implementation is {implementation!r}"
    return ""
