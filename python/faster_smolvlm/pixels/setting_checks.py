"""What the value of a setting may be: one question for each kind of value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from ..media import FrameSampling, MediaPolicy
from ..media.video_metadata import VideoMetadata
from .size import SizeDict

Check = Callable[[object], bool]

METADATA_NAMES = frozenset(VideoMetadata.__dataclass_fields__)


def is_bool(value: object) -> bool:
    """Whether it is True or False."""
    return isinstance(value, bool)


def is_int(value: object) -> bool:
    """Whether it is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_number_or_numbers(value: object) -> bool:
    """Whether it is a number, or a list or tuple of numbers."""
    return is_number(value) or (isinstance(value, (list, tuple)) and all(map(is_number, value)))


def is_size(value: object) -> bool:
    """Whether it is an int, a list of ints, or a dict with the names of a `SizeDict`."""
    if isinstance(value, dict):
        return all(key in SizeDict.__dataclass_fields__ and is_int(side) for key, side in value.items())
    return (
        isinstance(value, SizeDict) or is_int(value) or (isinstance(value, (list, tuple)) and all(map(is_int, value)))
    )


def has_longest_edge(value: object) -> bool:
    """Whether it is a size with a positive longest edge."""
    edge = value.get("longest_edge") if isinstance(value, (dict, SizeDict)) else None
    return isinstance(edge, int) and not isinstance(edge, bool) and edge > 0


def is_name(value: object) -> bool:
    """Whether it is a string or the member of an enum."""
    return isinstance(value, (str, Enum))


def is_device(value: object) -> bool:
    """Whether it is a device's number or name, or a torch.device."""
    return is_int(value) or isinstance(value, str) or is_of_torch(value)


def is_dtype(value: object) -> bool:
    """Whether it is a dtype's name or a torch.dtype."""
    return is_name(value) or is_of_torch(value)


def is_of_torch(value: object) -> bool:
    """Whether its class is one of torch's own; torch is not imported for that."""
    return type(value).__module__ == "torch"


def is_rate(value: object) -> bool:
    """Whether it is a number, 0 or more."""
    return isinstance(value, (int, float)) and value >= 0


def is_count(value: object) -> bool:
    """Whether it is an int, 0 or more."""
    return isinstance(value, int) and value >= 0


def is_metadata(value: object) -> bool:
    """Whether it describes clips: a `VideoMetadata`, a mapping with its names, or a list of those."""
    if isinstance(value, list):
        return all(map(is_metadata, value))
    return isinstance(value, VideoMetadata) or (isinstance(value, Mapping) and set(value) <= METADATA_NAMES)


def is_frame_sampling(value: object) -> bool:
    """Whether it is a `FrameSampling`."""
    return isinstance(value, FrameSampling)


def is_policy(value: object) -> bool:
    """Whether it is a `MediaPolicy`."""
    return isinstance(value, MediaPolicy)
