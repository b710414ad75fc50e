"""The accelerated classes, each made when it is first asked for: importing Transformers' ones takes seconds.

What makes pixels is imported when a class is made, too: a program that imports this may never load a processor.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from .notes import say_once
from .versions import NotAcceleratedError, UnsupportedTransformersError, get, is_listed, is_tested

IMAGE_PROCESSORS = (
    "SmolVLMImageProcessor",
    "SmolVLMImageProcessorPil",
    "SmolVLMImageProcessorFast",
    "Idefics3ImageProcessor",
    "Idefics3ImageProcessorPil",
    "Idefics3ImageProcessorFast",
)
VIDEO_PROCESSORS = ("SmolVLMVideoProcessor",)
PROCESSORS = ("SmolVLMProcessor", "Idefics3Processor")
MODELS = ("SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration")
_ALL = (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS, *PROCESSORS, *MODELS)

_PACKAGE = __name__.rpartition(".")[0]


@cache
def accelerated_class(name: str) -> Any:
    """Return the accelerated class of a name; AttributeError where there is none in this version of Transformers."""
    base = get(name) if name in _ALL else None
    if base is None:
        raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
    if base.__name__ != name:  # "…Fast" is another name of the same class in newer versions
        return accelerated_class(base.__name__)
    members = {"__module__": _PACKAGE, "__qualname__": name, "__doc__": f"Transformers' `{name}`, accelerated."}
    if name in PROCESSORS:
        from . import processors

        made = type(name, (base,), {**members, "__init__": processors.constructor(base)})
    else:
        made = type(name, (_mixin(name, base), base), members)
    if name in (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS) and not is_tested():
        _check_pixels(base, made)
    return made


def accelerated_class_of(target: Any) -> Any:
    """Return the accelerated class for an object that is exactly of a class of Transformers; None for any other.

    A class that this version of Transformers does not let us accelerate is returned itself, and that is said once.
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


def check_version() -> None:
    """Make every class that this version of Transformers has; raises `UnsupportedTransformersError` where one fails."""
    for name in (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS):
        if is_listed(name):
            with suppress(NotAcceleratedError):
                accelerated_class(name)


def is_accelerated(target: Any) -> bool:
    """Whether an object is of one of the classes of this module."""
    return type(target).__module__ == _PACKAGE


def _check_pixels(base: Any, made: Any) -> None:
    """Compare both classes on small pictures: what an unknown version of Transformers computes is not known."""
    import numpy as np

    frames = np.random.default_rng(0).integers(0, 256, (2, 31, 47, 3), np.uint8)
    settings = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 16}}
    theirs, ours = (kind(**settings)(frames, return_tensors="np") for kind in (base, made))
    same = set(theirs) == set(ours) and theirs["pixel_values"].shape == ours["pixel_values"].shape
    if not same or abs(theirs["pixel_values"] - ours["pixel_values"]).max() > 1e-6:
        raise UnsupportedTransformersError(f"its {base.__name__} makes other pixels than the Rust core")


def _mixin(name: str, base: Any) -> type:
    if name in MODELS:
        from .models import ModelMixin  # imports torch

        return ModelMixin
    if name in VIDEO_PROCESSORS:
        from . import videos

        return videos.mixin_for(base)
    from . import images

    return images.mixin_for(base)
