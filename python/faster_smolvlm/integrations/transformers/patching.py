"""`enable` and `disable`: everything that Transformers' `from_pretrained` returns, accelerated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ...fork_lock import ForkLock
from .classes import MODELS, PROCESSORS, check_version
from .inplace import accelerate_if_known, check_policy
from .versions import need

if TYPE_CHECKING:
    from ...media.policy import MediaPolicy

_AUTO = ("AutoProcessor", "AutoImageProcessor", "AutoVideoProcessor", "AutoModelForImageTextToText")
_NAME = "from_pretrained"
_ABSENT = object()
_patched: dict[tuple[type, str], object] = {}  # class and name -> what its own namespace held
_policy: MediaPolicy | None = None
_lock = ForkLock(0)
T = TypeVar("T")


def enable(*, policy: MediaPolicy | None = None) -> None:
    """Accelerate what the auto classes of Transformers, and its SmolVLM and Idefics3 classes, load from now on.

    Subclasses that inherit `from_pretrained` are included; objects of other families pass through untouched.
    `policy` is that of the processors that are loaded from now on, see `accelerate`. A second call changes nothing but
    that. Raises TypeError for a policy of another kind, `UnsupportedTransformersError`, before anything is changed, if
    the installed version does not fit.
    """
    global _policy
    check_policy(policy)
    with _lock:
        _policy = policy
        if _patched:
            return
        classes = [need(name) for name in (*_AUTO, *PROCESSORS, *MODELS)]
        check_version()
        for patched in classes:
            _set(patched, _NAME, classmethod(_accelerating(getattr(patched, _NAME).__func__)))


def disable() -> None:
    """Undo `enable`. Objects that were loaded meanwhile stay as they are."""
    with _lock:
        for (patched, name), original in _patched.items():
            if original is _ABSENT:
                delattr(patched, name)
            else:
                setattr(patched, name, original)
        _patched.clear()


def _set(patched: type, name: str, value: object) -> None:
    _patched[patched, name] = vars(patched).get(name, _ABSENT)
    setattr(patched, name, value)


def is_enabled() -> bool:
    """Whether `enable` is in force."""
    return bool(_patched)


def _accelerating(load: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(load)
    def from_pretrained(cls: type, *args: object, **kwargs: object) -> T:
        loaded = load(cls, *args, **kwargs)
        # With return_unused_kwargs there are two.
        accelerate_if_known(loaded[0] if isinstance(loaded, tuple) else loaded, _policy)
        return loaded

    return from_pretrained
