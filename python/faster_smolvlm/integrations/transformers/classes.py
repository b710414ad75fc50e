"""The accelerated classes, each made when it is first asked for: importing Transformers' ones takes seconds.

What makes pixels is imported when a class is made, too: a program that imports this may never load a processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, wraps
from typing import TYPE_CHECKING

from ...families import FAMILIES
from ...quoting import shown
from .notes import say_once
from .pipelines import gate_pipeline
from .versions import NotAcceleratedError, UnsupportedTransformersError, get, is_listed, is_tested

if TYPE_CHECKING:
    from .gate import GateMixin

IMAGE_PROCESSORS = tuple(f"{row.prefix}ImageProcessor{end}" for row in FAMILIES for end in ("", "Pil", "Fast"))
VIDEO_PROCESSORS = tuple(f"{row.prefix}VideoProcessor" for row in FAMILIES if row.has_video)
PROCESSORS = tuple(f"{row.prefix}Processor" for row in FAMILIES)
MODELS = tuple(f"{row.prefix}ForConditionalGeneration" for row in FAMILIES)
_ALL = (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS, *PROCESSORS, *MODELS)

_PACKAGE = __name__.rpartition(".")[0]


@cache
def accelerated_class(name: str) -> type:
    """Return the accelerated class of a name; AttributeError if this version of Transformers has none."""
    base = get(name) if name in _ALL else None
    if base is None:
        raise AttributeError(f"module {_PACKAGE!r} has no attribute {shown(name)}")
    if base.__name__ != name:  # "…Fast" is another name of the same class in newer versions
        return accelerated_class(base.__name__)
    if name in IMAGE_PROCESSORS:
        gate_pipeline()
    members = {"__module__": _PACKAGE, "__qualname__": name, "__doc__": f"Transformers' `{name}`, accelerated."}
    if name in PROCESSORS:
        made = type(name, (base,), {**members, "__init__": _constructor(base)})
    else:
        made = type(name, (_mixin(name, base), base), members)
    if name in (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS) and not is_tested():
        _check_pixels(base, made)
    return made


def check_version() -> None:
    """Make every class that this version of Transformers has; raises `UnsupportedTransformersError` if one fails."""
    for name in (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS):
        if is_listed(name):
            with suppress(NotAcceleratedError):
                accelerated_class(name)


def is_accelerated(target: object) -> bool:
    """Whether an object is of one of the classes of this module."""
    return type(target).__module__ == _PACKAGE


def is_one_of(target: object, names: Iterable[str]) -> bool:
    """Whether an object is of a class of Transformers with one of these names, or of a subclass of it."""
    return any(kind.__name__ in names and kind.__module__.startswith("transformers.") for kind in type(target).__mro__)


def accelerate_parts(processor: object) -> None:
    """Accelerate the image and the video processor of a processor."""
    for name in ("image_processor", "video_processor"):
        part = getattr(processor, name, None)
        if part is not None and not is_accelerated(part):
            if is_one_of(part, (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS)):
                swap_class(part)
            else:
                say_once(f"{type(part).__name__} is not of the SmolVLM family and stays as it is")


def readers_of(target: object) -> list[GateMixin]:
    """Return what is accelerated of a processor, its parts included, and reads pictures or clips."""
    from .gate import GateMixin

    parts = (target, getattr(target, "image_processor", None), getattr(target, "video_processor", None))
    return [part for part in parts if isinstance(part, GateMixin)]


def swap_class(target: object) -> None:
    """Give an object the accelerated class; one of a subclass of Transformers' class stays as it is."""
    found = _accelerated_class_of(target)
    if found is None:
        say_once(
            f"{type(target).__module__}.{type(target).__name__} may have steps of its own and stays as it is; only "
            "the classes of Transformers themselves are accelerated"
        )
        return
    target.__class__ = found


def _accelerated_class_of(target: object) -> type | None:
    """Return the accelerated class for an object that is exactly of a class of Transformers; None for any other.

    A class that this version of Transformers does not let us accelerate is returned itself, with a warning.
    """
    kind = type(target)
    if not kind.__module__.startswith("transformers."):
        return None
    try:
        found = accelerated_class(kind.__name__)
    except NotAcceleratedError as reason:
        say_once(str(reason))
        return kind
    except AttributeError:
        return None
    return found if kind in found.__bases__ else None


def _constructor(base: type) -> Callable[..., None]:
    """Return an `__init__` for a subclass of a processor of Transformers, which reads the names of parts from it."""
    construct: Callable[..., None] = base.__init__  # type: ignore[misc]  # `base` is one class, not any

    @wraps(construct)
    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
        construct(self, *args, **kwargs)
        accelerate_parts(self)

    return __init__


def _check_pixels(base: type, made: type) -> None:
    """Compare both classes on small pictures: what an unknown version of Transformers computes is not known."""
    import numpy as np

    frames = np.random.default_rng(0).integers(0, 256, (2, 31, 47, 3), np.uint8)
    settings = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 16}}
    theirs, ours = (kind(**settings)(frames, return_tensors="np") for kind in (base, made))
    same = set(theirs) == set(ours) and theirs["pixel_values"].shape == ours["pixel_values"].shape
    if not same or abs(theirs["pixel_values"] - ours["pixel_values"]).max() > 1e-6:
        raise UnsupportedTransformersError(f"its {base.__name__} makes other pixels than the Rust core")


def _mixin(name: str, base: type) -> type:
    if name in MODELS:
        from .models import ModelMixin  # imports torch

        return ModelMixin
    if name in VIDEO_PROCESSORS:
        from . import videos

        return videos.mixin_for(base)
    from . import images

    return images.mixin_for(base)
