"""The video processor of SmolVLM: clips to frames for the model, bit-equal to Transformers' on the same frames."""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from .. import _rust
from ..batch_feature import BatchFeature
from ..checkpoint.hub import HubOptions, checkpoint, split_hub_options
from ..checkpoint.json_files import json_text, read_json
from ..media import MediaPolicy
from ..media.image import load_frames
from ..media.kinds import is_source
from ..media.nesting import clip_layout, flatten_videos, metadata_of
from ..media.sampling import FrameSampling
from ..media.video import Sampler, VideoReader
from ..media.video_metadata import VideoMetadata
from .arithmetic import Array
from .clip_frames import FramePixels, check_output
from .image_processing_base import naming
from .image_processing_smolvlm import wrapper
from .settings import check_complete, plain, standardize, validate
from .size import SizeDict, size_dict
from .video_settings import CHECKS, NAMES

Self = TypeVar("Self", bound="SmolVLMVideoProcessor")

_FILE = "video_preprocessor_config.json"
# Attributes that are about the caller, and no settings of a checkpoint.
_OWN = ("frame_sampling", "media_policy", "threads")


class SmolVLMVideoProcessor:
    """Turns clips into the frames that a SmolVLM model takes; no torchcodec, no torchvision.

    Every setting is a keyword argument of the constructor, an attribute that may be changed later, and a keyword
    argument of a call (`max_image_size` is not read from a call). `video_sampling`, as the hub's files have it, sets
    `num_frames`, `fps` and `size`, but a `size` beside it wins. `frame_sampling`, where it is set, chooses frames in
    place of the model's rule; `media_policy` limits what clips from outside may be, `threads` how many threads decode
    and resize.
    """

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
    max_image_size: Any = {"longest_edge": 364}  # noqa: RUF012 - copied for each instance
    do_pad = True
    do_sample_frames = False
    return_metadata = False
    num_frames: int | None = None
    fps: float | None = None
    fast = False
    frame_sampling: FrameSampling | None = None
    media_policy = MediaPolicy()

    def __init__(self, *, threads: int | None = None, **kwargs: Any) -> None:
        self.threads = threads or min(4, os.cpu_count() or 1)
        for ignored in ("feature_extractor_type", "processor_class", "image_processor_type", "video_processor_type"):
            kwargs.pop(ignored, None)
        size = kwargs.get("size")
        given = {name: kwargs.pop(name, None) for name in NAMES}
        sampling = kwargs.get("video_sampling")
        if sampling is not None:
            sampling = kwargs["video_sampling"] = {**sampling, **({} if size is None else {"video_size": size})}
        settings = {
            name: copy.deepcopy(getattr(type(self), name, None)) if value is None else value
            for name, value in given.items()
        }
        vars(self).update(kwargs)
        settings = standardize(settings)
        del settings["default_to_square"]  # has done its work; Transformers does not keep it either
        vars(self).update(settings)
        if sampling is not None:
            self.num_frames, self.fps = sampling["max_frames"], sampling["fps"]
            self.size = size_dict(sampling["video_size"], default_to_square=self.default_to_square).to_dict()

    def __call__(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Alias of `preprocess`."""
        return self.preprocess(videos, **kwargs)

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Return the frames of `videos`.

        `videos` is a clip or a list of clips; a clip is a path, URL, data URI, base64 string, bytes or a binary file,
        an array or tensor (frames, height, width, channels) or (frames, channels, height, width) with 1 or 3 channels,
        or a list of pictures. With `do_sample_frames` at most `num_frames` frames, `fps` per second, are taken of each
        by `sample_frames`; arrays need `video_metadata` for that; a `frame_sampling` chooses in its place. The result
        holds `pixel_values`, float32 (clips, frames, 3, height, width), clips shorter than the longest padded by zeros,
        `pixel_attention_mask`, int64 (clips, frames, height, width), 1 in those frames too, and with `return_metadata`
        the list `video_metadata`. `return_tensors` is "pt", "np" or None (lists). Clips that are read from files are
        turned upright; a sample aspect ratio is not applied (see `VideoReader`).

        `fast` scales from the decoder's planes to the model's size at once, where the exact way resizes twice. Its
        frames are not bit-equal: the mean difference is below 1 % of the range of values, but single values at sharp
        edges can be far off.

        Raises TypeError for unknown arguments, `StrictDataclassFieldValidationError` for values of a wrong type,
        ValueError for clips and settings that cannot be used, and a `MediaError` for sources that cannot be read.
        """
        validate(kwargs, CHECKS)
        settings = standardize({name: kwargs.get(name, getattr(self, name, None)) for name in NAMES})
        check_complete(settings)
        if settings["do_center_crop"] and settings["crop_size"] is None:
            raise ValueError("`crop_size` must be specified if `do_center_crop` is `True`.")
        clips = flatten_videos(videos)
        metadata = metadata_of(clips, settings["video_metadata"])
        pixels = []
        with ThreadPoolExecutor(self.threads) as pool:
            to_pixels = FramePixels(settings, self.max_image_size["longest_edge"], settings["media_policy"])
            for place, clip in enumerate(clips):
                with naming(f"video {place}") if len(clips) > 1 else nullcontext():
                    frames, metadata[place] = self._clip(clip, metadata[place], settings, to_pixels, pool)
                pixels.append(frames)
        features = BatchFeature(_pack(pixels, settings), tensor_type=plain(settings["return_tensors"]))
        if settings["return_metadata"]:
            features["video_metadata"] = metadata
        return features

    def _clip(
        self,
        clip: Any,
        metadata: VideoMetadata,
        settings: dict[str, Any],
        to_pixels: FramePixels,
        pool: ThreadPoolExecutor,
    ) -> tuple[Array, VideoMetadata]:
        sample, sampling = settings["do_sample_frames"], settings["frame_sampling"]
        limits = {"num_frames": settings["num_frames"], "fps": settings["fps"]}
        if is_source(clip):
            reader = VideoReader(clip, policy=settings["media_policy"], threads=self.threads, rotate=True)
            every: Sampler = lambda metadata: np.arange(metadata.total_num_frames)  # noqa: E731
            sampler = self.sampler(reader, frame_sampling=sampling, **limits) if sample else every
            return to_pixels.of_file(reader, sampler, fast=bool(settings["fast"]))
        if isinstance(clip, list):
            if sample:
                raise ValueError(
                    "Sampling frames from a list of images is not supported! Set `do_sample_frames=False`."
                )
            return to_pixels.of_array(load_frames(clip, settings["media_policy"]), "channels_last", pool), metadata
        if sample:
            if sampling is None:
                metadata.frames_indices = self.sample_frames(metadata, **limits)
            elif sampling.fps is not None and metadata.fps is None:
                raise ValueError(f"frame_sampling={sampling} needs the `fps` of the clip; pass `video_metadata`")
            else:
                metadata.frames_indices = sampling.choose([i / (metadata.fps or 1) for i in range(len(clip))])
            clip = clip[metadata.frames_indices]
        given = settings["input_data_format"]
        layout = clip_layout(clip) if given is None else str(getattr(given, "value", given))
        return to_pixels.of_array(clip, layout, pool), metadata

    def sampler(
        self, reader: VideoReader, *, num_frames: int | None, fps: float | None, frame_sampling: FrameSampling | None
    ) -> Sampler:
        """Return what chooses frames of a file: `frame_sampling` where there is one, else `sample_frames`."""
        if frame_sampling is not None:
            return lambda metadata: reader.sample(frame_sampling)
        return partial(self.sample_frames, num_frames=num_frames, fps=fps)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        skip_secs: float = 1,
        **kwargs: Any,
    ) -> Array:
        """Return the indices of the frames to take: `fps` per second, at most `num_frames`, evenly over the clip.

        Both default to the attributes. `skip_secs` seconds are left out at both ends of a clip longer than
        ``num_frames * fps + 2 * skip_secs`` seconds. Raises ValueError without the metadata's `fps`, TypeError
        without its `duration` or where `num_frames` and `fps` are set nowhere.
        """
        video_fps = getattr(metadata, "fps", None)
        if video_fps is None:
            raise ValueError(
                "Asked to sample frames per second but no video metadata was provided which is required when sampling "
                "in SmolVLM. Please pass in `VideoMetadata` object or set `do_sample_frames=False`"
            )
        at_most = self.num_frames if num_frames is None else num_frames
        rate = self.fps if fps is None else fps
        duration = metadata["duration"]
        if at_most is None or rate is None or duration is None:
            raise TypeError(
                f"sampling needs num_frames, fps and the duration of the clip, got {at_most}, {rate} and {duration}; "
                "pass them, or set `do_sample_frames=False`"
            )
        indices = _rust.sample_frames(
            metadata.total_num_frames, video_fps, duration, at_most, rate, skip_secs=skip_secs
        )
        return np.array(indices, dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dict that JSON can hold."""
        settings = {name: value for name, value in vars(self).items() if name not in _OWN}
        if not settings.pop("fast", False):
            settings.pop("fast", None)  # Transformers knows no such setting
        kept: dict[str, Any] = {"video_processor_type": type(self).__name__}
        for name, value in copy.deepcopy(settings).items():
            if isinstance(value, SizeDict):
                value = value.to_dict()
            # None is written only where it differs from the default of the class.
            if value is not None or getattr(type(self), name, None) is not None:
                kept[name] = value
        return kept

    def to_json_string(self) -> str:
        """Return the settings as JSON."""
        return json_text(self.to_dict())

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Write the settings as JSON."""
        Path(json_file_path).write_text(self.to_json_string(), encoding="utf-8")

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write `video_preprocessor_config.json` into a directory, made where needed; return its path in a list."""
        directory = Path(save_directory)
        if directory.is_file():
            raise NotADirectoryError(f"Provided path ({directory}) should be a directory, not a file")
        directory.mkdir(parents=True, exist_ok=True)
        self.to_json_file(directory / _FILE)
        return [os.path.join(save_directory, _FILE)]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load from a directory, a JSON file or a hub id; keyword arguments that are settings override the file.

        The files are read in this order: `video_processor` in processor_config.json, video_preprocessor_config.json,
        preprocessor_config.json. Other arguments are ignored, and returned beside the processor with
        `return_unused_kwargs=True`. Raises OSError where the files are missing.
        """
        hub_options, kwargs = split_hub_options(kwargs)
        for ignored in ("force_download", "proxies", "_from_auto", "_from_pipeline", "use_fast", "trust_remote_code"):
            kwargs.pop(ignored, None)
        settings = _find_settings(os.fspath(pretrained_model_name_or_path), kwargs.pop("subfolder", ""), hub_options)
        return cls.from_dict(settings, **kwargs)

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a processor from settings; keyword arguments that are settings override them."""
        return_unused = kwargs.pop("return_unused_kwargs", False)
        known = {name: value for name, value in kwargs.items() if name in (*NAMES, *_OWN)}
        processor = cls(**{**video_processor_dict, **known})
        return (processor, {k: v for k, v in kwargs.items() if k not in known}) if return_unused else processor

    @classmethod
    def from_json_file(cls: type[Self], json_file: str | os.PathLike[str]) -> Self:
        """Make a processor from a JSON file."""
        return cls(**read_json(Path(json_file)))

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def _pack(clips: list[Array], settings: dict[str, Any]) -> dict[str, Any]:
    """The entries of the result, in the containers that the settings ask for."""
    if not settings["do_rescale"] and not settings["do_normalize"]:
        clips = [_as_given(clip) for clip in clips]
    wrap = wrapper(settings)
    if not settings["do_pad"]:
        return {"pixel_values": [wrap(clip) for clip in clips]}
    longest = max(len(clip) for clip in clips)
    height, width = max(clip.shape[2] for clip in clips), max(clip.shape[3] for clip in clips)
    if len(clips) == 1:
        pixels = clips[0][None]
    else:
        check_output(len(clips) * longest, height, width, settings["media_policy"])
        pixels = np.zeros((len(clips), longest, 3, height, width), dtype=clips[0].dtype)
        for row, clip in zip(pixels, clips, strict=True):
            row[: len(clip), :, : clip.shape[2], : clip.shape[3]] = clip
    mask = _rust.empty((len(clips), longest, height, width), "int64")
    if all(clip.shape[2:] == (height, width) for clip in clips):
        _rust.fill_mask(mask, [longest] * len(clips))  # also in frames that only pad, as in Transformers
    else:
        mask[:] = 0
        for row, clip in zip(mask, clips, strict=True):
            row[:, : clip.shape[2], : clip.shape[3]] = 1
    if settings["return_tensors"] is None:
        return {"pixel_values": list(map(wrap, pixels)), "pixel_attention_mask": list(map(wrap, mask))}
    return {"pixel_values": wrap(pixels), "pixel_attention_mask": wrap(mask)}


def _as_given(clip: Array) -> Array:
    """uint8 frames that are neither rescaled nor normalised stay uint8."""
    return clip.astype(np.uint8) if np.array_equal(clip, clip.astype(np.uint8)) else clip


def _find_settings(name: str, folder: str, hub_options: HubOptions) -> dict[str, Any]:
    if os.path.isfile(name):
        return read_json(Path(name))
    source = checkpoint(name, **hub_options)
    path = source.find(os.path.join(folder, "processor_config.json"))
    if path is not None and "video_processor" in (nested := read_json(path)):
        settings: dict[str, Any] = nested["video_processor"]
        return settings
    path = source.find(os.path.join(folder, _FILE))
    return read_json(path or source.require(os.path.join(folder, "preprocessor_config.json")))
