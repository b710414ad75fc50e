"""From the settings and pictures of one call of Transformers' image processors to our pixels, or a reason not to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...quoting import shown

if TYPE_CHECKING:
    from transformers.image_processing_utils import BatchFeature

from ...media import MediaPolicy
from ...media.kinds import is_array, is_pil_image
from ...pixels.image_processing_base import SmolVLMImageProcessorBase
from ...pixels.settings import OF_CALLER, SETTINGS, Reader, names, names_without_effect

Picture = Any
"""A PIL image, an array or a tensor: Transformers names no type of which they all are."""
Settings = dict[str, Any]
"""The settings of a call by name; which of them a call has depends on the version of Transformers."""

OPEN_POLICY = MediaPolicy(max_pixels=sys.maxsize, max_side=1 << 30, max_output_bytes=sys.maxsize)
"""Transformers has no limits, so a drop-in has none."""

LANCZOS, BICUBIC = 1, 3
# These are passed on in another form, or not at all: the pictures that come are converted.
_FORMS = frozenset({"resample", "interpolation", "size", "device", "input_data_format", "data_format"})
_PASSED_ON = frozenset(names(Reader.PICTURES)) - names_without_effect(Reader.PICTURES) - OF_CALLER - _FORMS
# Transformers does nothing with these here, or has done it when the pictures come.
_IGNORED = frozenset(name for name, setting in SETTINGS.items() if not setting.ours) - _PASSED_ON - _FORMS
_KNOWN = _PASSED_ON | _IGNORED | _FORMS | {"size_divisor"}


@lru_cache(maxsize=2)
def _image_processor(backend: str) -> SmolVLMImageProcessorBase:
    if backend == "pil":
        from ...pixels.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

        return SmolVLMImageProcessorPil(media_policy=OPEN_POLICY)
    from ...pixels.image_processing_smolvlm import SmolVLMImageProcessor

    return SmolVLMImageProcessor(media_policy=OPEN_POLICY)


def features(backend: str, pictures: list[list[Picture]], settings: Settings) -> dict[str, object]:
    """Return the frames of samples of pictures, with the arithmetic of "torchvision" or "pil"."""
    return dict(_image_processor(backend).preprocess(pictures, **settings))


def batch_feature(data: dict[str, object]) -> BatchFeature:
    """Return Transformers' own `BatchFeature` around `data`."""
    from transformers.image_processing_utils import BatchFeature

    return BatchFeature(data)


def settings_for(
    kwargs: Settings, *, lanczos_is_bicubic: bool, reader: Reader = Reader.PICTURES
) -> tuple[Settings, str]:
    """Translate the settings of a call of Transformers; the second is why ours cannot serve them, "" if it can."""
    unknown = sorted(name for name, value in kwargs.items() if name not in _KNOWN and value is not None)
    if unknown:
        return {}, f"the setting {shown(unknown[0])} is not known here"
    for name, value in kwargs.items():
        if name.startswith("do_") and value is not None and not isinstance(value, bool):
            return {}, f"{name} is {shown(value)}, neither True nor False"
    device = kwargs.get("device")
    if device is not None and str(device) != "cpu":
        return {}, f"device={shown(device)} was asked for, and the Rust core works on the CPU"
    resample = _resample(kwargs)
    if resample is None:
        return {}, "the resampling filter is not one of Pillow's"
    settings = {name: kwargs[name] for name in _PASSED_ON & set(names(reader)) if kwargs.get(name) is not None}
    settings["resample"] = BICUBIC if resample == LANCZOS and lanczos_is_bicubic else resample
    if kwargs.get("size") is not None:
        size = kwargs["size"]
        sides = size.items() if isinstance(size, dict) else asdict(size).items()
        settings["size"] = {side: value for side, value in sides if value is not None}
    return settings, ""


def _resample(kwargs: Settings) -> int | None:
    given = kwargs.get("resample", kwargs.get("interpolation"))
    if isinstance(given, int):
        return int(given)
    if given is None:
        return None
    by_name = {"nearest": 0, "lanczos": LANCZOS, "bilinear": 2, "bicubic": BICUBIC, "box": 4, "hamming": 5}
    return by_name.get(str(getattr(given, "value", given)))


def as_rgb(image: Picture, input_data_format: object, convert: Callable[[Picture], Picture]) -> Picture:
    """Return a picture that is RGB to every version of Transformers as it is, any other one as `convert` makes it.

    What becomes of palettes, transparency and greys differs from version to version; Transformers' own step decides.
    """
    if is_pil_image(image):
        return image if image.mode == "RGB" and "transparency" not in image.info else convert(image)
    if is_array(image) and image.ndim == 3 and "uint8" in str(image.dtype) and input_data_format is None:
        first, last = image.shape[0], image.shape[-1]
        if last == 3 and first not in (1, 3, 4):
            return image
    return convert(image)


def why_not(pictures: list[list[Picture]]) -> str:
    """Return why ours cannot serve these pictures as Transformers does to the bit, "" if it can."""
    kinds = {_kind(image) for sample in pictures for image in sample}
    if not kinds:
        return "there are no pictures"
    if kinds != {"uint8 RGB"}:
        other = sorted(kinds - {"uint8 RGB"})[0]
        return f"a picture holds {other}, where the Rust core is bit-equal for uint8 RGB only"
    return ""


def _kind(image: Picture) -> str:
    if is_pil_image(image):
        return "uint8 RGB"
    channels = image.shape[0] if image.ndim == 3 and image.shape[0] in (1, 3, 4) else image.shape[-1]
    dtype = str(image.dtype).removeprefix("torch.")
    return "uint8 RGB" if dtype == "uint8" and channels == 3 else f"{dtype} values in {channels} channels"
