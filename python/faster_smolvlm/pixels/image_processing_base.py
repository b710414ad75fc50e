"""What both image processors share: settings, files, the way from pictures to frames."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from .. import _rust
from ..batch_feature import BatchFeature
from ..checkpoint.hub import checkpoint, split_hub_options
from ..checkpoint.json_files import json_text, read_json
from ..media import MediaLimitError, MediaPolicy, load_image
from ..media.nesting import nest_pictures
from .arithmetic import Arithmetic, Array, Formula
from .plan import ImagePlan
from .planes import PillowPixels, is_plain_rgb, to_planes, warn_if_scaled
from .settings import NAMES, check_complete, plain, standardize, target, validate
from .size import SizeDict

Self = TypeVar("Self", bound="SmolVLMImageProcessorBase")

_FILE = "preprocessor_config.json"
# Tables of one process-wide set of settings are small (3 kB); different ones are few.
_TABLES = 32


class SmolVLMImageProcessorBase:
    """Turns pictures into the frames that a SmolVLM model takes.

    Every setting is a keyword argument of the constructor, an attribute that may be changed later, and a keyword
    argument of a call. `media_policy` limits what pictures from outside may be. Three settings are not in Transformers:

    * `max_tiles`: the largest grid with at most so many tiles is taken;
    * `upscale=False`: small pictures are not enlarged to the longest edge;
    * `output_dtype`: "bfloat16" rounds `pixel_values`; "uint8" leaves them as bytes, neither rescaled nor normalised,
      for a model that does both, missing frames being 0.
    """

    backend: ClassVar[str]
    arithmetic: ClassVar[Arithmetic]
    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_attention_mask"]

    do_convert_rgb = True
    do_resize = True
    size: Any = {"longest_edge": 4 * 364}  # noqa: RUF012 - copied for each instance
    resample = 1
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean: Any = (0.5, 0.5, 0.5)
    image_std: Any = (0.5, 0.5, 0.5)
    default_to_square = True
    do_image_splitting = True
    max_image_size: Any = {"longest_edge": 364}  # noqa: RUF012 - copied for each instance
    do_pad = True
    return_row_col_info = False

    def __init__(self, *, media_policy: MediaPolicy | None = None, **kwargs: Any) -> None:
        self.media_policy = media_policy or MediaPolicy()
        for ignored in ("feature_extractor_type", "processor_class", "image_processor_type"):
            kwargs.pop(ignored, None)
        settings = {
            name: kwargs.pop(name) if name in kwargs else copy.deepcopy(getattr(type(self), name, None))
            for name in NAMES
        }
        vars(self).update(kwargs)
        settings = standardize(settings)
        del settings["default_to_square"]  # has done its work; Transformers does not keep it either
        vars(self).update(settings)

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        """Alias of `preprocess`."""
        return self.preprocess(images, **kwargs)

    def preprocess(self, images: Any, **kwargs: Any) -> BatchFeature:
        """Return the frames of `images`.

        `images` is a picture, a list of pictures (one sample) or a list of lists (a batch); a picture is a PIL
        image, an array or tensor (height, width, channels) or (channels, height, width), a path, URL, data URI, base64
        string, bytes or a binary file. The result holds `pixel_values`, float32 (batch, frames, channels, tile, tile),
        `pixel_attention_mask`, int64 (batch, frames, tile, tile), 1 where a frame is, and with `return_row_col_info`
        the nested lists `rows` and `cols`. `return_tensors` is "pt", "np" or None.

        Raises TypeError for unknown arguments, `StrictDataclassFieldValidationError` for values of a wrong type,
        ValueError for pictures and settings that cannot be used, and a `MediaError` for sources that cannot be read.
        """
        validate(kwargs)
        settings = {name: kwargs.get(name, getattr(self, name, None)) for name in NAMES}
        settings = standardize(settings)
        check_complete(settings)
        samples = nest_pictures(self.fetch_images(images))
        planes = [
            [self._planes(image, settings, f"image {column} of sample {row}") for column, image in enumerate(sample)]
            for row, sample in enumerate(samples)
        ]
        return self._preprocess(planes, settings)

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Replace sources (paths, URLs, bytes, files …), at any depth, by decoded pictures."""
        if not isinstance(image_url_or_urls, (list, tuple)):
            return load_image(image_url_or_urls, self.media_policy)
        return [self._fetch(item, index) for index, item in enumerate(image_url_or_urls)]

    def _fetch(self, item: Any, index: int) -> Any:
        with naming(f"image {index}"):
            return self.fetch_images(item)

    def _planes(self, image: Any, settings: dict[str, Any], place: str) -> Array | PillowPixels:
        with naming(place):
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

    def _preprocess(self, samples: list[list[Array | PillowPixels]], settings: dict[str, Any]) -> BatchFeature:
        stage_a = target(settings)
        tile, split = settings["max_image_size"]["longest_edge"], bool(settings["do_image_splitting"])
        layouts = [
            [_rust.layout(image.shape[1], image.shape[2], tile=tile, split=split, **stage_a) for image in sample]
            for sample in samples
        ]
        frames = [sum(rows * cols + 1 for _, _, rows, cols in sample) for sample in layouts]
        channels = next(image.shape[0] for sample in samples for image in sample)
        shape = (len(samples), max(frames), channels, tile, tile)
        self._check_output(shape)
        if all(image.dtype == np.uint8 and image.shape[0] == channels for sample in samples for image in sample):
            pixels = self._native_frames(samples, layouts, shape, settings, stage_a, split)
            untouched = not settings["do_rescale"] and not settings["do_normalize"]
            if untouched and self._keeps_uint8(bool(settings["do_pad"]), padded=min(frames) < shape[1]):
                pixels = pixels.astype(np.uint8)
        elif plain(settings["output_dtype"]) == "uint8":
            raise ValueError("output_dtype='uint8' needs pictures of uint8 values")
        else:
            pixels = self._reference_frames(samples, shape, settings)
        data = self._pack(pixels, frames, settings)
        features = BatchFeature(data, tensor_type=plain(settings["return_tensors"]))
        if settings["return_row_col_info"]:
            features["rows"] = [[rows for _, _, rows, _ in sample] for sample in layouts]
            features["cols"] = [[cols for _, _, _, cols in sample] for sample in layouts]
        return features

    def _check_output(self, shape: tuple[int, ...]) -> None:
        needed, allowed = 4 * math.prod(shape), self.media_policy.max_output_bytes
        if needed > allowed:
            raise MediaLimitError(
                f"the frames of this call, {shape[0]} × {shape[1]} of {shape[2]}×{shape[3]}×{shape[4]}, take {needed} "
                f"bytes, allowed are {allowed}; pass fewer pictures at a time, or raise MediaPolicy.max_output_bytes"
            )

    def _native_frames(
        self,
        samples: list[list[Array | PillowPixels]],
        layouts: list[list[Any]],
        shape: tuple[int, ...],
        settings: dict[str, Any],
        stage_a: dict[str, Any],
        split: bool,
    ) -> Array:
        table, formula = conversion(self.arithmetic, shape[2], settings)
        # NumPy has no bfloat16: its bits travel as uint16.
        storage = {"bfloat16": "uint16", "uint8": "uint8"}.get(plain(settings["output_dtype"]), "float32")
        out = _rust.empty((shape[0] * shape[1], *shape[2:]), storage)
        images, places = [], []
        for row, (sample, grids) in enumerate(zip(samples, layouts, strict=True)):
            place = row * shape[1]
            for image, (_, _, rows, cols) in zip(sample, grids, strict=True):
                images.append(image.image if isinstance(image, PillowPixels) else image.transpose(1, 2, 0))
                places.append(place)
                place += rows * cols + 1
            out[place : (row + 1) * shape[1]] = 0
        _rust.preprocess(
            images,
            places,
            out,
            split=split,
            resample=int(2 if settings["resample"] is None else settings["resample"]),
            arithmetic=self.arithmetic.name,
            table=table,
            formula=formula,
            **stage_a,
        )
        return out.reshape(shape)

    def _reference_frames(
        self, samples: list[list[Array | PillowPixels]], shape: tuple[int, ...], settings: dict[str, Any]
    ) -> Array:
        """The same in single steps, for pictures that are not uint8."""
        out = np.zeros(shape, dtype=np.float32)
        tile = settings["max_image_size"]["longest_edge"]
        for row, sample in enumerate(samples):
            place = 0
            for column, image in enumerate(sample):
                with naming(f"image {column} of sample {row}"):
                    for frame in self._frames(np.asanyarray(image), tile, settings):
                        out[row, place] = self.arithmetic.rescale_and_normalize(frame, *rescaling(settings))
                        place += 1
        return out

    def _frames(self, image: Array, tile: int, settings: dict[str, Any]) -> Iterator[Array]:
        resample = settings["resample"]
        resize: Callable[..., Array] = self.arithmetic.resize
        if settings["do_resize"]:
            (height, width), *_ = _rust.layout(*image.shape[1:], tile=tile, split=True, **target(settings))
            image = resize(image, height, width, resample)
        keep: dict[str, Any] = {
            "longest_edge": None,
            "exact": None,
            "tile": tile,
            "split": bool(settings["do_image_splitting"]),
        }
        _, (height, width), rows, cols = _rust.layout(*image.shape[1:], **keep)
        image = resize(image, height, width, resample)
        for row in range(rows):
            for col in range(cols):
                yield image[:, row * tile : (row + 1) * tile, col * tile : (col + 1) * tile]
        yield resize(image, tile, tile, resample) if rows else image

    def _pack(self, pixels: Array, frames: list[int], settings: dict[str, Any]) -> dict[str, Any]:
        """The entries of the result, in the containers that the settings ask for."""
        wrap = wrap_mask = self._wrapper(settings)
        if plain(settings["output_dtype"]) == "bfloat16":
            wrap = _to_bfloat16(plain(settings["return_tensors"]))
        if settings["do_pad"]:
            mask = _rust.empty((*pixels.shape[:2], *pixels.shape[3:]), "int64")
            _rust.fill_mask(mask, frames)
            return {"pixel_values": wrap(pixels), "pixel_attention_mask": wrap_mask(mask)}
        if settings["return_tensors"] is not None and len(set(frames)) == 1:
            return {"pixel_values": wrap(pixels)}
        if plain(settings["return_tensors"]) == "pt":
            raise ValueError(
                f"Unable to convert output 'pixel_values' to one tensor: the samples have {frames} frames; "
                "pass do_pad=True to stack them"
            )
        return {
            "pixel_values": [[wrap(frame) for frame in row[:count]] for row, count in zip(pixels, frames, strict=True)]
        }

    def _keeps_uint8(self, do_pad: bool, padded: bool) -> bool:
        """Whether pixels that are neither rescaled nor normalised stay uint8."""
        raise NotImplementedError

    def _wrapper(self, settings: dict[str, Any]) -> Callable[[Array], Any]:
        """What turns an array into what this class returns."""
        raise NotImplementedError

    def plan(self, width: int, height: int, *, image_seq_len: int = 64, **kwargs: Any) -> ImagePlan:
        """What a picture of this size becomes, without looking at pixels; equal to what a call does, for every size.

        `image_seq_len` is the number of tokens that one frame takes in the prompt, an attribute of `SmolVLMProcessor`;
        other keyword arguments are settings, as in a call. Raises ValueError for sizes below 1.
        """
        validate(kwargs)
        settings = standardize({name: kwargs.get(name, getattr(self, name, None)) for name in NAMES})
        _, _, rows, cols = _rust.layout(
            height,
            width,
            tile=settings["max_image_size"]["longest_edge"],
            split=bool(settings["do_image_splitting"]),
            **target(settings),
        )
        return ImagePlan(rows, cols, rows * cols + 1, image_seq_len)

    def get_number_of_image_patches(
        self, height: int, width: int, images_kwargs: dict[str, Any] | None = None
    ) -> tuple[int, int, int]:
        """Return (frames, rows, cols) for a picture of this size, (0, 0, 0) where it is not split.

        Kept as Transformers computes it: where the tile does not divide the longest edge it can differ from the tiling.
        """
        kwargs = {name: getattr(self, name) for name in ("do_image_splitting", "max_image_size", "size")}
        kwargs.update(images_kwargs or {})
        if not kwargs["do_image_splitting"]:
            return 0, 0, 0
        tile = kwargs["max_image_size"]["longest_edge"]
        (height, width), *_ = _rust.layout(
            height, width, longest_edge=kwargs["size"]["longest_edge"], exact=None, tile=tile, split=True
        )
        rows, cols = math.ceil(height / tile), math.ceil(width / tile)
        return (rows * cols + 1, rows, cols) if max(rows, cols) > 1 else (0, 0, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dict that JSON can hold."""
        settings = {name: value for name, value in vars(self).items() if name != "media_policy"}
        settings.pop("return_row_col_info", None)
        settings["image_processor_type"] = type(self).__name__.removesuffix("Pil")
        kept: dict[str, Any] = {}
        for name, value in copy.deepcopy(settings).items():
            if isinstance(value, SizeDict):
                value = value.to_dict()
            # None is written only where it differs from the default of the class.
            if value is not None or getattr(type(self), name, None) is not None:
                kept[name] = value
        return kept

    def to_json_string(self) -> str:
        """Return the settings as JSON."""
        settings = {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in self.to_dict().items()
        }
        return json_text(settings)

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Write the settings as JSON."""
        Path(json_file_path).write_text(self.to_json_string(), encoding="utf-8")

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write `preprocessor_config.json` into a directory, made where needed; return its path in a list."""
        directory = Path(save_directory)
        if directory.is_file():
            raise NotADirectoryError(f"Provided path ({directory}) should be a directory, not a file")
        directory.mkdir(parents=True, exist_ok=True)
        self.to_json_file(directory / _FILE)
        return [os.path.join(save_directory, _FILE)]

    @classmethod
    def from_pretrained(cls: type[Self], pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load from a directory, a JSON file or a hub id; keyword arguments that are settings override the file.

        Others are ignored, and returned beside the processor with `return_unused_kwargs=True`. Raises OSError where the
        files are missing.
        """
        settings, rest = cls.get_image_processor_dict(pretrained_model_name_or_path, **kwargs)
        return cls.from_dict(settings, **rest)

    @classmethod
    def get_image_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings in the files of a checkpoint, and the keyword arguments that were not about files."""
        hub_options, kwargs = split_hub_options(kwargs)
        for ignored in ("force_download", "proxies", "_from_auto", "_from_pipeline", "use_fast", "trust_remote_code"):
            kwargs.pop(ignored, None)
        folder = kwargs.pop("subfolder", "")
        name = os.fspath(pretrained_model_name_or_path)
        if os.path.isfile(name):
            return read_json(Path(name)), kwargs
        source = checkpoint(name, **hub_options)
        path = source.find(os.path.join(folder, "processor_config.json"))
        if path is not None and "image_processor" in (nested := read_json(path)):
            return nested["image_processor"], kwargs
        return read_json(source.require(os.path.join(folder, kwargs.pop("image_processor_filename", _FILE)))), kwargs

    @classmethod
    def from_dict(cls: type[Self], image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a processor from settings; keyword arguments that are settings override them."""
        return_unused = kwargs.pop("return_unused_kwargs", False)
        known = {name: value for name, value in kwargs.items() if name in NAMES or name == "media_policy"}
        processor = cls(**{**image_processor_dict, **known})
        return (processor, {k: v for k, v in kwargs.items() if k not in known}) if return_unused else processor

    @classmethod
    def from_json_file(cls: type[Self], json_file: str | os.PathLike[str]) -> Self:
        """Make a processor from a JSON file."""
        return cls(**read_json(Path(json_file)))

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def conversion(arithmetic: Arithmetic, channels: int, settings: dict[str, Any]) -> tuple[Array, Formula]:
    """What each byte of each channel becomes, (channels, 256) float32, and a formula that may give the same."""
    return _conversion(arithmetic, channels, *map(_hashable, rescaling(settings)))


def rescaling(settings: dict[str, Any]) -> tuple[Any, ...]:
    """The settings that `Arithmetic.rescale_and_normalize` takes, in its order."""
    names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    return tuple(settings[name] for name in names)


def _to_bfloat16(tensor_type: str | None) -> Callable[[Array], Any]:
    if tensor_type == "np":
        raise ValueError("NumPy has no bfloat16; pass return_tensors='pt' with output_dtype='bfloat16'")
    import torch

    def convert(array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor.to(torch.bfloat16)

    return convert


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=_TABLES)
def _conversion(arithmetic: Arithmetic, channels: int, *rescaling: Any) -> tuple[Array, Formula]:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (channels, 1, 256))
    values = arithmetic.rescale_and_normalize(ramp, *rescaling)
    table = np.ascontiguousarray(values.reshape(channels, 256), dtype=np.float32)
    table.setflags(write=False)
    do_rescale, factor, do_normalize, mean, std = rescaling
    steps = (factor if do_rescale else None, *((mean, std) if do_normalize else (None, None)))
    formula = arithmetic.formula(*steps)
    return table, formula * channels if len(formula) == 1 else formula


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Say which picture an error is about."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise type(error)(f"{place}: {error}") from None
