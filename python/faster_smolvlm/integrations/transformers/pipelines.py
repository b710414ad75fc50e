"""Pictures that a pipeline of Transformers reads itself, before the processor sees them, pass our gate too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .versions import get

if TYPE_CHECKING:
    from ...media.policy import MediaPolicy


class _Pipeline(Protocol):
    processor: object


_MARK = "_reads_at_the_gate"
_STEP = "preprocess"


def gate_pipeline() -> None:
    """Let the image-text-to-text pipeline read the pictures of accelerated processors at the gate, from now on.

    For all other processors it stays as it is, so there is nothing to undo.
    """
    pipeline = get("ImageTextToTextPipeline")
    preprocess = getattr(pipeline, _STEP, None)
    if pipeline is None or preprocess is None or hasattr(preprocess, _MARK):
        return
    marked = gated(preprocess)
    setattr(marked, _MARK, True)
    setattr(pipeline, _STEP, marked)


def gated(preprocess: Callable[..., object]) -> Callable[..., object]:
    """Return a `preprocess` of a pipeline that reads the texts among its `images` at the gate.

    That is for a processor whose image processor is accelerated, with its `media_policy`; others are left alone.
    """

    @functools.wraps(preprocess)
    def reads_at_the_gate(self: _Pipeline, inputs: object = None, *args: object, **kwargs: object) -> object:
        from .gate import GateMixin  # what makes pixels is imported when a class is made

        part = getattr(self.processor, "image_processor", None)
        if isinstance(part, GateMixin) and isinstance(inputs, dict) and "images" in inputs:
            inputs = {**inputs, "images": _read(inputs["images"], part.media_policy)}
        return preprocess(self, inputs, *args, **kwargs)

    return reads_at_the_gate


def _read(images: object, policy: MediaPolicy) -> object:
    from ...pixels.sources import naming  # what makes pixels is imported when a class is made
    from .reading import read_pillow

    if isinstance(images, str):
        return read_pillow(images, policy)
    if not isinstance(images, (list, tuple)):
        return images
    found = []
    for index, image in enumerate(images):
        with naming(f"image {index}"):
            found.append(_read(image, policy))
    return found
