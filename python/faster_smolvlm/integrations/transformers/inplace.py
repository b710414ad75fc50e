"""`accelerate`: an object of Transformers gets its accelerated class, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ...quoting import shown
from .classes import (
    IMAGE_PROCESSORS,
    MODELS,
    PROCESSORS,
    VIDEO_PROCESSORS,
    accelerate_parts,
    is_accelerated,
    is_one_of,
    readers_of,
    swap_class,
)

if TYPE_CHECKING:
    from ...media.policy import MediaPolicy

T = TypeVar("T")


def accelerate(processor_or_model: T, *, policy: MediaPolicy | None = None) -> T:
    """Accelerate an object of Transformers in place, and return it.

    `policy` limits the pictures and clips that a processor reads from paths, URLs, data URIs and base64 texts, also in
    a pipeline; None leaves that as it is, at first `MediaPolicy()`. It is the attribute `media_policy` of the image and
    the video processor.

    * An image or video processor of SmolVLM or Idefics3 makes its pixels in Rust.
    * A processor, and a subclass of one such as colpali's `ColIdefics3Processor`, keeps its class; its image and video
      processors are accelerated.
    * A model of SmolVLM or Idefics3 with its language head generates with the native engine on a CPU, with Triton
      kernels in captured steps on a GPU; Transformers does what they do not serve, and `model.generation_engine` says
      so.

    Every setting stays and may be changed at any time; a second call changes nothing. What belongs to these families
    but cannot be accelerated (a subclass with steps of its own) is left as it is, with a warning.

    Raises TypeError for objects of other kinds, and for a policy of another kind or for a model, which reads nothing;
    `UnsupportedTransformersError` if the installed version does not fit.
    """
    check_policy(policy)
    if policy is not None and is_one_of(processor_or_model, MODELS):
        raise TypeError("policy= is for processors: a model reads no pictures and clips")
    if not accelerate_if_known(processor_or_model, policy):
        known = (*PROCESSORS, *IMAGE_PROCESSORS, *VIDEO_PROCESSORS, *MODELS)
        raise TypeError(
            f"accelerate() takes an object of Transformers' {', '.join(known)}, got "
            f"{type(processor_or_model).__module__}.{type(processor_or_model).__name__}"
        )
    return processor_or_model


def accelerate_if_known(target: object, policy: MediaPolicy | None = None) -> bool:
    """As `accelerate`, for any object; False for one of another kind, which is left alone, as is a model's policy."""
    if not is_accelerated(target):
        if is_one_of(target, PROCESSORS):
            accelerate_parts(target)
        elif is_one_of(target, (*IMAGE_PROCESSORS, *VIDEO_PROCESSORS, *MODELS)):
            swap_class(target)
        else:
            return False
    if policy is not None:
        for reader in readers_of(target):
            reader.media_policy = policy
    return True


def check_policy(policy: object) -> None:
    """Raise TypeError for what is neither None nor a `MediaPolicy`."""
    if policy is None:
        return
    from ...media.policy import MediaPolicy

    if not isinstance(policy, MediaPolicy):
        raise TypeError(f"policy has to be a MediaPolicy or None, got {shown(policy)}")
