"""`enable` and `disable`: everything that Transformers' `from_pretrained` returns, accelerated."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TypeVar

from .classes import MODELS, PROCESSORS, check_version
from .inplace import accelerate_if_known
from .versions import need

_AUTO = ("AutoProcessor", "AutoImageProcessor", "AutoVideoProcessor", "AutoModelForImageTextToText")
_NAME = "from_pretrained"
_ABSENT = object()
_patched: dict[type, object] = {}  # class -> what its own namespace held
_lock = threading.Lock()
T = TypeVar("T")


def enable() -> None:
    """Accelerate what the auto classes of Transformers, and its SmolVLM and Idefics3 classes, load from now on.

    Subclasses that inherit `from_pretrained` are included; objects of other families pass through untouched. A second
    call changes nothing. Raises `UnsupportedTransformersError`, before anything is changed, if the installed version
    does not fit.
    """
    with _lock:
        if _patched:
            return
        classes = [need(name) for name in (*_AUTO, *PROCESSORS, *MODELS)]
        check_version()
        for patched in classes:
            _patched[patched] = vars(patched).get(_NAME, _ABSENT)
            setattr(patched, _NAME, classmethod(_accelerating(getattr(patched, _NAME).__func__)))


def disable() -> None:
    """Undo `enable`. Objects that were loaded meanwhile stay as they are."""
    with _lock:
        for patched, original in _patched.items():
            if original is _ABSENT:
                delattr(patched, _NAME)
            else:
                setattr(patched, _NAME, original)
        _patched.clear()


def is_enabled() -> bool:
    """Whether `enable` is in force."""
    return bool(_patched)


def _accelerating(load: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(load)
    def from_pretrained(cls: type, *args: object, **kwargs: object) -> T:
        loaded = load(cls, *args, **kwargs)
        # With return_unused_kwargs there are two.
        accelerate_if_known(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    return from_pretrained
