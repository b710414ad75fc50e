"""`accelerate`: an object of Transformers gets its accelerated class, in place."""

from __future__ import annotations

from typing import TypeVar

from .classes import (
    IMAGE_PROCESSORS,
    MODELS,
    PROCESSORS,
    VIDEO_PROCESSORS,
    accelerate_parts,
    is_accelerated,
    is_one_of,
    swap_class,
)

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
    but cannot be accelerated (a subclass with steps of its own) is left as it is, with a warning.

    Raises TypeError for objects of other kinds, `UnsupportedTransformersError` if the installed version does not fit.
    """
    if not accelerate_if_known(processor_or_model):
        known = (*PROCESSORS, *IMAGE_PROCESSORS, *VIDEO_PROCESSORS, *MODELS)
        raise TypeError(
            f"accelerate() takes an object of Transformers' {', '.join(known)}, got "
            f"{type(processor_or_model).__module__}.{type(processor_or_model).__name__}"
        )
    return processor_or_model


def accelerate_if_known(target: object) -> bool:
    """As `accelerate`, for any object; False for one of another kind, which is left alone."""
    if is_accelerated(target):
        return True
    if is_one_of(target, PROCESSORS):
        accelerate_parts(target)
        return True
    if not is_one_of(target, (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS, *MODELS)):
        return False
    swap_class(target)
    return True
