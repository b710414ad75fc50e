"""`accelerate`: the objects of Transformers, made faster where they are."""

from __future__ import annotations

from typing import Any, TypeVar

from .classes import IMAGE_PROCESSORS, MODELS, PROCESSORS, VIDEO_PROCESSORS, accelerated_class_of, is_accelerated
from .notes import say_once

T = TypeVar("T")


def accelerate(processor_or_model: T) -> T:
    """Accelerate an object of Transformers in place, and return it.

    * An image or video processor of SmolVLM or Idefics3 makes its pixels in Rust.
    * A processor, and a subclass of one such as colpali's `ColIdefics3Processor`, keeps its class; its image and video
      processors are accelerated.
    * A model of SmolVLM or Idefics3 with its language head generates with the native engine on a CPU, with Triton
      kernels in captured steps on a GPU; Transformers does what they do not serve, and `model.generation_engine` says
      so.

    Every setting stays and may be changed at any time; a second call changes nothing. What belongs to these families
    but cannot be accelerated (a subclass with steps of its own) is left as it is, and that is said once.

    Raises TypeError for objects of other kinds, `UnsupportedTransformersError` where the installed version does not
    fit.
    """
    if not accelerate_if_known(processor_or_model):
        known = (*PROCESSORS, *IMAGE_PROCESSORS, *VIDEO_PROCESSORS, *MODELS)
        raise TypeError(
            f"accelerate() takes an object of Transformers' {', '.join(known)}, got "
            f"{type(processor_or_model).__module__}.{type(processor_or_model).__name__}"
        )
    return processor_or_model


def accelerate_if_known(target: Any) -> bool:
    """As `accelerate`, for any object; False for one of another kind, which is left alone."""
    if is_accelerated(target):
        return True
    if _is_one_of(target, PROCESSORS):
        accelerate_parts(target)
        return True
    if not _is_one_of(target, (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS, *MODELS)):
        return False
    _swap(target)
    return True


def accelerate_parts(processor: Any) -> None:
    """Accelerate the image and the video processor of a processor."""
    for name in ("image_processor", "video_processor"):
        part = getattr(processor, name, None)
        if part is not None and not is_accelerated(part):
            if _is_one_of(part, (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS)):
                _swap(part)
            else:
                say_once(f"{type(part).__name__} is not of the SmolVLM family and stays as it is")


def _swap(target: Any) -> None:
    found = accelerated_class_of(target)
    if found is None:
        say_once(
            f"{type(target).__module__}.{type(target).__name__} may have steps of its own and stays as it is; only "
            "the classes of Transformers themselves are accelerated"
        )
        return
    target.__class__ = found


def _is_one_of(target: Any, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names and kind.__module__.startswith("transformers.") for kind in type(target).__mro__)
