"""The video processor of SmolVLM: clips to frames for the model, bit-equal to Transformers' on the same frames."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

import numpy as np

from .. import _rust
from ..batch_feature import BatchFeature
from ..checkpoint.json_files import JsonObject
from ..cores import usable_cores
from ..media import MediaPolicy
from ..media.image import joined, load_frames
from ..media.kinds import is_source
from ..media.limits import check_decoded_clip
from ..media.nesting import clip_layout, flatten_videos, metadata_of
from ..media.sampling import FrameSampling
from ..media.video import Sampler, VideoReader
from ..media.video_metadata import VideoMetadata
from ..quoting import shown
from .arithmetic import Array
from .call_settings import (
    Settings,
    call_settings,
    check_complete,
    check_of_caller,
    plain,
    standardize,
    tensor_type,
)
from .clip_frames import FramePixels
from .output import pack_clips
from .settings import Reader, names
from .settings_files import SettingsFiles
from .size import SizeDict, size_dict
from .sources import naming

if TYPE_CHECKING:
    from ..media.kinds import AnyArray
    from ..media.nesting import Clip

Self = TypeVar("Self", bound="SmolVLMVideoProcessor")


class SmolVLMVideoProcessor(SettingsFiles):
    """Turns clips into the frames that a SmolVLM model takes; no torchcodec, no torchvision.

    Every setting is a keyword argument of the constructor, an attribute that may be changed later, and a keyword
    argument of a call (`max_image_size` is not read from a call). `video_sampling`, as the hub's files have it, sets
    `num_frames`, `fps` and `size`, but a `size` beside it wins. `frame_sampling`, if it is set, chooses frames instead
    of the model's rule; `media_policy` limits what clips from outside may be, `threads` how many threads decode
    and resize.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_attention_mask"]
    _reader = Reader.CLIPS
    _part = "video_processor"
    _files = ("video_preprocessor_config.json", "preprocessor_config.json")
    _also_read = ("video_sampling",)

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
    max_image_size: dict[str, int] = {"longest_edge": 364}  # noqa: RUF012 - copied for each instance
    do_pad = True
    do_sample_frames = False
    return_metadata = False
    num_frames: int | None = None
    fps: float | None = None
    fast = False
    frame_sampling: FrameSampling | None = None
    media_policy = MediaPolicy()
    threads: int

    def __init__(self, **kwargs: object) -> None:
        known = names(self._reader)
        given = {name: kwargs.pop(name, None) for name in known}
        sampling = cast("Settings | None", kwargs.get("video_sampling"))
        if sampling is not None:
            if not isinstance(sampling, Mapping):
                raise TypeError(f"video_sampling must be a dict, got {shown(sampling)}")
            size = {} if given["size"] is None else {"video_size": given["size"]}
            sampling = kwargs["video_sampling"] = {**sampling, **size}
            missing = [name for name in ("max_frames", "fps", "video_size") if name not in sampling]
            if missing:
                raise ValueError(f"video_sampling must have max_frames, fps and video_size; {missing[0]} is missing")
        self._keep_foreign(kwargs)
        settings = standardize(
            {
                name: copy.deepcopy(getattr(type(self), name, None)) if value is None else value
                for name, value in given.items()
            }
        )
        check_of_caller(settings)
        settings["threads"] = settings["threads"] or min(4, usable_cores())
        del settings["default_to_square"]  # it has been applied; Transformers does not keep it either
        vars(self).update(settings)
        if sampling is not None:
            self.num_frames, self.fps = sampling["max_frames"], sampling["fps"]
            self.size = size_dict(
                sampling["video_size"], default_to_square=self.default_to_square, name="video_size"
            ).to_dict()

    def __call__(self, videos: object, **kwargs: object) -> BatchFeature:
        """Alias of `preprocess`."""
        return self.preprocess(videos, **kwargs)

    def preprocess(self, videos: object, **kwargs: object) -> BatchFeature:
        """Return the frames of `videos`.

        `videos` is a clip or a list of clips; a clip is a path, URL, data URI, base64 string, bytes or a binary file,
        an array or tensor (frames, height, width, channels) or (frames, channels, height, width) with 1 or 3 channels
        (or 4, alpha blended onto white, if `input_data_format` says which way), an array (frames, height, width) of
        greys, or a list of pictures: PIL images of any mode become RGB as single pictures do. With `do_sample_frames`
        at most `num_frames` frames, `fps` per second, are taken of each by `sample_frames`; arrays need
        `video_metadata` for that; a `frame_sampling` replaces it. The result holds `pixel_values`, float32 (clips,
        frames, 3, height, width), clips shorter than the longest padded by zeros,
        `pixel_attention_mask`, int64 (clips, frames, height, width), 1 in those frames too, and with `return_metadata`
        the list `video_metadata`. `return_tensors` is "pt", "np" or None (lists). Clips that are read from files are
        turned upright; a sample aspect ratio is not applied (see `VideoReader`).

        `fast` scales from the decoder's planes to the model's size at once, while the exact way resizes twice. Its
        frames are not bit-equal: the mean difference is below 1 % of the range of values, but single values at sharp
        edges can be far off.

        Raises TypeError for unknown arguments, `StrictDataclassFieldValidationError` for values of a wrong type,
        ValueError for clips and settings that cannot be used, and a `MediaError` for sources that cannot be read.
        """
        settings = call_settings(self, kwargs, self._reader)
        check_complete(settings)
        if settings["do_center_crop"] and settings["crop_size"] is None:
            raise ValueError("`crop_size` must be specified if `do_center_crop` is `True`.")
        clips = flatten_videos(videos)
        metadata = metadata_of(clips, settings["video_metadata"])
        pixels = []
        with ThreadPoolExecutor(self.threads) as pool:
            to_pixels = FramePixels(settings, self.max_image_size["longest_edge"])
            for index, clip in enumerate(clips):
                with naming(f"video {index}") if len(clips) > 1 else nullcontext():
                    frames, metadata[index] = self._clip(clip, metadata[index], settings, to_pixels, pool)
                pixels.append(frames)
        features = BatchFeature(pack_clips(pixels, settings), tensor_type=tensor_type(settings))
        if settings["return_metadata"]:
            features["video_metadata"] = metadata
        return features

    def _clip(
        self, clip: Clip, metadata: VideoMetadata, settings: Settings, to_pixels: FramePixels, pool: ThreadPoolExecutor
    ) -> tuple[Array, VideoMetadata]:
        sample, policy = settings["do_sample_frames"], settings["media_policy"]
        if is_source(clip):
            reader = VideoReader(clip, policy=policy, threads=self.threads, rotate=True)
            limits = {name: settings[name] for name in ("num_frames", "fps", "frame_sampling")}
            sampler = self.sampler(reader, **limits) if sample else _every_frame
            return to_pixels.of_file(reader, sampler, fast=bool(settings["fast"]))
        if isinstance(clip, list):
            encoded = any(map(is_source, clip))
            if sample and encoded:
                raise ValueError(
                    "Sampling frames from a list of images is not supported! Set `do_sample_frames=False`."
                )
            frames = load_frames(clip, policy)
            if encoded:
                return to_pixels.of_array(frames, "channels_last", pool), metadata
            clip = joined(frames)
        check_decoded_clip(clip, policy)
        if sample:
            metadata.frames_indices = self._sampled(clip, metadata, settings)
            clip = clip[metadata.frames_indices]
        given = plain(settings["input_data_format"])
        return to_pixels.of_array(clip, clip_layout(clip) if given is None else str(given), pool), metadata

    def _sampled(self, clip: AnyArray, metadata: VideoMetadata, settings: Settings) -> Array:
        """Return which frames of an array are taken."""
        sampling: FrameSampling | None = settings["frame_sampling"]
        if sampling is None:
            return self.sample_frames(metadata, settings["num_frames"], settings["fps"])
        if sampling.fps is not None and metadata.fps is None:
            raise ValueError(f"frame_sampling={sampling} needs the `fps` of the clip; pass `video_metadata`")
        return sampling.choose([index / (metadata.fps or 1) for index in range(len(clip))])

    def sampler(
        self, reader: VideoReader, *, num_frames: int | None, fps: float | None, frame_sampling: FrameSampling | None
    ) -> Sampler:
        """Return what chooses frames of a file: `the `frame_sampling` if there is one, else `sample_frames`."""
        if frame_sampling is not None:
            return lambda metadata: reader.sample(frame_sampling)
        return partial(self.sample_frames, num_frames=num_frames, fps=fps)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        skip_secs: float = 1,
        **kwargs: object,
    ) -> Array:
        """Return the indices of the frames to take: `fps` per second, at most `num_frames`, evenly over the clip.

        Both default to the attributes. `skip_secs` seconds are left out at both ends of a clip longer than
        ``num_frames * fps + 2 * skip_secs`` seconds. Raises ValueError without the metadata's `fps`, TypeError
        without its `duration`, or if `num_frames` or `fps` is set nowhere.
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

    @classmethod
    def _made(
        cls: type[Self], settings: Mapping[str, object], kwargs: Settings, path: Path | None
    ) -> Self | tuple[Self, JsonObject]:
        """Make a processor from the settings of a file; keyword arguments override its `video_sampling` too."""
        sampling = settings.get("video_sampling")
        if isinstance(sampling, Mapping):
            given = {"max_frames": kwargs.get("num_frames"), "fps": kwargs.get("fps")}
            sampling = {**sampling, **{name: value for name, value in given.items() if value is not None}}
            settings = {**settings, "video_sampling": sampling}
        return super()._made(settings, kwargs, path)

    def to_dict(self) -> JsonObject:
        """Return the settings as a dict that JSON can hold."""
        settings = super().to_dict()
        if not settings.get("fast"):
            settings.pop("fast", None)  # Transformers knows no such setting
        return settings


def _every_frame(metadata: VideoMetadata) -> Array:
    return np.arange(metadata.total_num_frames)
