"""The settings of the video processor: their names, and what they may be."""

from __future__ import annotations

from typing import Any

from ..media import MediaPolicy
from ..media.sampling import FrameSampling
from ..media.video_metadata import VideoMetadata
from .settings import CHECKS as IMAGE_CHECKS

_SHARED = (
    "do_convert_rgb",
    "do_resize",
    "size",
    "default_to_square",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_center_crop",
    "do_pad",
    "crop_size",
    "data_format",
    "input_data_format",
    "device",
    "return_tensors",
    "max_image_size",
)
_METADATA = set(VideoMetadata.__dataclass_fields__)


def _metadata(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_metadata, value))
    return isinstance(value, VideoMetadata) or (hasattr(value, "keys") and set(value) <= _METADATA)


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


def _rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


CHECKS = {
    **{name: IMAGE_CHECKS[name] for name in _SHARED},
    "do_sample_frames": (_bool, "a bool"),
    "video_metadata": (_metadata, f"VideoMetadata, a dict with keys of {sorted(_METADATA)}, or lists of those"),
    "fps": (_rate, "a number, 0 or more"),
    "num_frames": (_count, "an int, 0 or more"),
    "return_metadata": (_bool, "a bool"),
    "fast": (_bool, "a bool"),
    "frame_sampling": (lambda value: isinstance(value, FrameSampling), "a FrameSampling"),
    "media_policy": (lambda value: isinstance(value, MediaPolicy), "a MediaPolicy"),
}
NAMES = tuple(CHECKS)
