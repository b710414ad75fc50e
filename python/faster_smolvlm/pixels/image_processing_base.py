"""What both image processors share: the way from pictures to frames."""

from __future__ import annotations

import copy
import math
import os
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .. import _rust
from ..batch_feature import BatchFeature
from ..checkpoint.json_files import JsonObject
from ..media import MediaPolicy
from ..media.nesting import nest_pictures
from ..unknown_names import check_names
from .arithmetic import Arithmetic
from .call_settings import Settings, call_settings, check_complete, check_of_caller, plain, standardize, tensor_type
from .output import Wrap, check_output, pack_frames
from .picture_frames import Planes, Samples, grid_of, native_frames, stepwise_frames
from .plan import ImagePlan
from .planes import PillowPixels, is_plain_rgb, to_planes, warn_if_scaled
from .settings import Reader, names
from .settings_files import SettingsFiles
from .size import SizeDict
from .sources import load_pictures, naming

if TYPE_CHECKING:
    from ..media.kinds import Picture


class SmolVLMImageProcessorBase(SettingsFiles):
    """Turns pictures into the frames that a SmolVLM model takes.

    Every setting is a keyword argument of the constructor, an attribute that may be changed later, and a keyword
    argument of a call. Four settings are not in Transformers:

    * `media_policy` limits what pictures from outside may be, and how many bytes a call may return;
    * `max_tiles`: the largest grid with at most so many tiles is taken;
    * `upscale=False`: small pictures are not enlarged to the longest edge;
    * `output_dtype`: "bfloat16" rounds `pixel_values`; "uint8" leaves them as bytes, neither rescaled nor normalised,
      for a model that does both, missing frames being 0.
    """

    backend: ClassVar[str]
    arithmetic: ClassVar[Arithmetic]
    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_attention_mask"]
    _reader = Reader.PICTURES
    _part = "image_processor"
    _files = ("preprocessor_config.json",)

    do_convert_rgb = True
    do_resize = True
    size: SizeDict | dict[str, int] | None = {"longest_edge": 4 * 364}  # noqa: RUF012 - copied for each instance
    resample = 1
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean: float | tuple[float, ...] | list[float] | None = (0.5, 0.5, 0.5)
    image_std: float | tuple[float, ...] | list[float] | None = (0.5, 0.5, 0.5)
    default_to_square = True
    do_image_splitting = True
    max_image_size: dict[str, int] = {"longest_edge": 364}  # noqa: RUF012 - copied for each instance
    do_pad = True
    return_row_col_info = False
    media_policy = MediaPolicy()

    def __init__(self, **kwargs: object) -> None:
        known = names(self._reader)
        self._keep_foreign({name: value for name, value in kwargs.items() if name not in known})
        defaults = {name: copy.deepcopy(getattr(type(self), name, None)) for name in known}
        settings = standardize({name: kwargs.get(name, default) for name, default in defaults.items()})
        settings["media_policy"] = settings["media_policy"] or defaults["media_policy"]
        check_of_caller(settings)
        del settings["default_to_square"]  # it has been applied; Transformers does not keep it either
        vars(self).update(settings)

    def __call__(self, images: object, **kwargs: object) -> BatchFeature:
        """Alias of `preprocess`."""
        return self.preprocess(images, **kwargs)

    def preprocess(self, images: object, **kwargs: object) -> BatchFeature:
        """Return the frames of `images`.

        `images` is a picture, a list of pictures (one sample) or a list of lists (a batch); a picture is a PIL
        image, an array or tensor (height, width, channels) or (channels, height, width), a path, URL, data URI, base64
        string, bytes or a binary file. The result holds `pixel_values`, float32 (batch, frames, channels, tile, tile),
        `pixel_attention_mask`, int64 (batch, frames, tile, tile), 1 in real frames, and with `return_row_col_info`
        the nested lists `rows` and `cols`. `return_tensors` is "pt", "np" or None.

        Raises TypeError for unknown arguments, `StrictDataclassFieldValidationError` for values of a wrong type,
        ValueError for pictures and settings that cannot be used, and a `MediaError` for sources that cannot be read.
        """
        settings = call_settings(self, kwargs, self._reader)
        check_complete(settings)
        policy: MediaPolicy = settings["media_policy"]
        # A subclass may load pictures in its own way, by the method of Transformers.
        loaded = self.fetch_images(images) if policy is self.media_policy else load_pictures(images, policy)
        planes = [
            [self._planes(image, settings, f"image {column} of sample {row}") for column, image in enumerate(sample)]
            for row, sample in enumerate(nest_pictures(loaded))
        ]
        return self._preprocess(planes, settings)

    def fetch_images(self, image_url_or_urls: object) -> Picture | list[object]:
        """Replace sources (paths, URLs, bytes, files …), at any depth, by decoded pictures."""
        return load_pictures(image_url_or_urls, self.media_policy)

    def _planes(self, image: Picture, settings: Settings, which: str) -> Planes:
        with naming(which):
            if is_plain_rgb(image):
                return PillowPixels(image)
            planes = to_planes(
                image,
                do_convert_rgb=settings["do_convert_rgb"],
                input_data_format=settings["input_data_format"],
                rgba=self.arithmetic.rgba,
            )
            warn_if_scaled(planes, settings["do_rescale"])
            return planes

    def _preprocess(self, samples: Samples, settings: Settings) -> BatchFeature:
        grids = [[grid_of(image.shape[1], image.shape[2], settings) for image in sample] for sample in samples]
        frames = [sum(grid.frames for grid in sample) for sample in grids]
        channels = next(image.shape[0] for sample in samples for image in sample)
        tile = settings["max_image_size"]["longest_edge"]
        shape = (len(samples), max(frames), channels, tile, tile)
        check_output(
            math.prod(shape),
            settings["media_policy"],
            f"the frames of this call, {shape[0]} × {shape[1]} of {channels}×{tile}×{tile}, take",
            "pass fewer pictures at a time",
        )
        if all(image.dtype == np.uint8 and image.shape[0] == channels for sample in samples for image in sample):
            pixels = native_frames(samples, grids, shape, settings, self.arithmetic)
            untouched = not settings["do_rescale"] and not settings["do_normalize"]
            if untouched and self._keeps_uint8(bool(settings["do_pad"]), padded=min(frames) < shape[1]):
                pixels = pixels.astype(np.uint8)
        elif plain(settings["output_dtype"]) == "uint8":
            raise ValueError("output_dtype='uint8' needs pictures of uint8 values")
        else:
            pixels = stepwise_frames(samples, shape, settings, self.arithmetic)
        data = pack_frames(pixels, frames, settings, self._wrap(settings))
        features = BatchFeature(data, tensor_type=tensor_type(settings))
        if settings["return_row_col_info"]:
            features["rows"] = [[grid.rows for grid in sample] for sample in grids]
            features["cols"] = [[grid.cols for grid in sample] for sample in grids]
        return features

    def _keeps_uint8(self, do_pad: bool, padded: bool) -> bool:
        """Whether pixels that are neither rescaled nor normalised stay uint8."""
        raise NotImplementedError

    def _wrap(self, settings: Settings) -> Wrap:
        """What turns an array into what this class returns."""
        raise NotImplementedError

    def plan(self, width: int, height: int, *, image_seq_len: int = 64, **kwargs: object) -> ImagePlan:
        """What a picture of this size becomes, without looking at pixels; equal to what a call does, for every size.

        `image_seq_len` is the number of tokens that one frame takes in the prompt, an attribute of `SmolVLMProcessor`;
        other keyword arguments are settings, as in a call. Raises ValueError for sizes below 1.
        """
        grid = grid_of(height, width, call_settings(self, kwargs, self._reader))
        return ImagePlan(grid.rows, grid.cols, grid.frames, image_seq_len)

    def get_number_of_image_patches(
        self, height: int, width: int, images_kwargs: Settings | None = None
    ) -> tuple[int, int, int]:
        """Return (frames, rows, cols) for a picture of this size, (0, 0, 0) if it is not split.

        Kept as Transformers computes it: if the tile does not divide the longest edge it can differ from the tiling.
        """
        kwargs: Settings = {name: getattr(self, name) for name in ("do_image_splitting", "max_image_size", "size")}
        check_names(images_kwargs or {}, names(self._reader))
        kwargs.update(images_kwargs or {})
        if not kwargs["do_image_splitting"]:
            return 0, 0, 0
        tile = kwargs["max_image_size"]["longest_edge"]
        sizes = _rust.ImageSizes(longest_edge=kwargs["size"]["longest_edge"], exact=None, tile=tile, split=True)
        (height, width), *_ = _rust.layout(height, width, sizes=sizes)
        rows, cols = math.ceil(height / tile), math.ceil(width / tile)
        return (rows * cols + 1, rows, cols) if max(rows, cols) > 1 else (0, 0, 0)

    def to_dict(self) -> JsonObject:
        """Return the settings as a dict that JSON can hold."""
        settings = super().to_dict()
        settings.pop("return_row_col_info", None)  # the processor of prompts asks for it in each call
        return settings

    @classmethod
    def get_image_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: object
    ) -> tuple[JsonObject, Settings]:
        """Return the settings in the files of a checkpoint, and the keyword arguments that were not about files."""
        return cls._read(os.fspath(pretrained_model_name_or_path), kwargs)
