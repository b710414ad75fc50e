"""What the accelerated image processors do differently: one method each."""

from __future__ import annotations

import inspect
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from . import pixels
from .gate import GateMixin
from .notes import say_once
from .pixels import Picture
from .versions import NotAcceleratedError, UnsupportedTransformersError, version

if TYPE_CHECKING:
    from transformers.image_processing_utils import BatchFeature

    class _Base(GateMixin):
        """What the mixins use of Transformers' classes that they stand before."""

        backend: str

        def _preprocess_image_like_inputs(self, images: object, *args: object, **kwargs: object) -> BatchFeature: ...
        def _prepare_images_structure(self, images: object) -> list[list[Picture]]: ...
        def process_image(self, image: Picture, **kwargs: object) -> Picture: ...
        def preprocess(self, images: object, *args: object, **kwargs: object) -> BatchFeature: ...
else:
    _Base = GateMixin

_NEEDS = {
    "do_resize": ("size", "resample"),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}
_CONVERSION = ("do_convert_rgb", "input_data_format", "device")


class ImageProcessorMixin(_Base):
    """Comes before an image processor of Transformers that validates first and then calls the method below.

    Settings, their defaults, nesting, loading and all errors about them stay Transformers'.
    """

    def _preprocess_image_like_inputs(self, images: object, *args: object, **kwargs: object) -> BatchFeature:
        inherited = super()._preprocess_image_like_inputs
        if args:
            return inherited(images, *args, **kwargs)
        nested = self._prepare_images_structure(images)
        backend = str(self.backend)
        bicubic = backend != "pil" and lanczos_is_bicubic(inherited_class(self))
        settings, reason = pixels.settings_for(kwargs, lanczos_is_bicubic=bicubic)
        if not reason:
            convert = partial(self.process_image, **{name: kwargs.get(name) for name in _CONVERSION})
            given = kwargs.get("input_data_format")
            pictures = [[pixels.as_rgb(image, given, convert) for image in sample] for sample in nested]
            reason = pixels.why_not(pictures)
        if reason:
            say_once(f"{type(self).__name__} leaves this call to Transformers: {reason}")
            return inherited(nested, **kwargs)
        return pixels.batch_feature(pixels.features(backend, pictures, settings))


class SlowImageProcessorMixin(_Base):
    """Comes before an image processor of Transformers 4.57 to 5.3 that works with Pillow, all of it in `preprocess`."""

    def preprocess(self, images: object, *args: object, **kwargs: object) -> BatchFeature:
        """Return the frames of `images`; arguments and result are those of Transformers' class."""
        inherited = super().preprocess
        bound = inspect.signature(inherited).bind(images, *args, **kwargs)
        bound.apply_defaults()
        given = {name: value for name, value in bound.arguments.items() if name != "images"}
        call = {name: getattr(self, name, None) if value is None else value for name, value in given.items()}
        settings, reason = pixels.settings_for(call, lanczos_is_bicubic=False)
        if not reason and call["return_tensors"] is None:
            reason = "lists of arrays were asked for (return_tensors=None)"
        if not reason and str(getattr(call["data_format"], "value", call["data_format"])) != "channels_first":
            reason = "the frames were asked for with the channels last"
        if not reason:
            nested = self._nested(images)
            layout = call["input_data_format"]
            pictures = [[pixels.as_rgb(image, layout, np.asarray) for image in sample] for sample in nested]
            reason = pixels.why_not(pictures) or self._why_incomplete(call)
        if reason:
            say_once(f"{type(self).__name__} leaves this call to Transformers: {reason}")
            return inherited(images, *args, **kwargs)
        return pixels.batch_feature(pixels.features("pil", pictures, settings))

    def _nested(self, images: object) -> list[list[Picture]]:
        from transformers.image_utils import make_nested_list_of_images

        nested: list[list[Picture]] = make_nested_list_of_images(self.fetch_images(images))
        return nested

    @staticmethod
    def _why_incomplete(call: pixels.Settings) -> str:
        for step, names in _NEEDS.items():
            if call[step] and any(call[name] is None for name in names):
                return f"{step} lacks a setting"
        return ""


def mixin_for(base: Any) -> type[_Base]:
    """Return what to put before an image processor class of Transformers.

    Raises `NotAcceleratedError` if its arithmetic is another, `UnsupportedTransformersError` if its API is.
    """
    if "interpolation" in inspect.signature(base.resize).parameters:
        raise NotAcceleratedError(
            f"{base.__name__} of Transformers {version()} resizes in float32, which the Rust core does not do to the "
            "bit; it stays as it is. The class without Fast is accelerated"
        )
    if hasattr(base, "_preprocess_image_like_inputs"):
        if not hasattr(base, "_prepare_images_structure") or not hasattr(base, "process_image"):
            raise UnsupportedTransformersError(f"{base.__name__} has no step that converts single pictures")
        return ImageProcessorMixin
    names = set(inspect.signature(base.preprocess).parameters)
    if {"do_image_splitting", "max_image_size", "resample", "data_format", "input_data_format"} <= names:
        return SlowImageProcessorMixin
    raise UnsupportedTransformersError(f"{base.__name__}.preprocess takes other arguments")


def inherited_class(processor: object) -> type:
    """Return the class of Transformers that an accelerated processor extends."""
    classes = type(processor).__mro__
    return classes[classes.index(GateMixin) + 1]


@lru_cache(maxsize=8)
def lanczos_is_bicubic(base: Any) -> bool:
    """Whether a class of Transformers computes Lanczos as bicubic, as it does if torchvision has no Lanczos: ask it."""
    import torch
    from transformers.image_utils import SizeDict

    picture = (torch.arange(3 * 9 * 11).reshape(1, 3, 9, 11) * 37 % 256).to(torch.uint8)
    processor, size = base(), SizeDict(height=4, width=5)
    if "interpolation" in inspect.signature(base.resize).parameters:
        from torchvision.transforms import InterpolationMode as Mode

        results = [processor.resize(picture, size, interpolation=mode) for mode in (Mode.LANCZOS, Mode.BICUBIC)]
    else:
        results = [processor.resize(picture, size, resample=number) for number in (pixels.LANCZOS, pixels.BICUBIC)]
    return bool(torch.equal(*results))
