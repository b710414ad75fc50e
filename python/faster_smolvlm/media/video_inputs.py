"""From what a caller passes as videos to a flat list of clips, each with its metadata."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .image import is_array, is_pil_image
from .video_metadata import VideoMetadata


def flatten_videos(videos: Any) -> list[Any]:
    """Return one entry per clip: a 4-D array, a path, URL or bytes, or a list of the paths of its frames.

    A list of frames (pictures or 3-D arrays) is one clip, a list of clips or a 5-D array several, a single picture or
    3-D array a clip of one frame. Nothing is opened. Raises ValueError for anything else.
    """
    if is_source(videos) or _is_clip(videos):
        return [_stacked(videos)]
    if is_array(videos) and videos.ndim == 5:
        return list(videos)
    if is_image(videos):
        return [_as_array(videos)[None]]
    if not isinstance(videos, (list, tuple)):
        raise ValueError(
            "Invalid video input. Expected either a list of video frames or an input of 4 or 5 dimensions, but got "
            f"type {type(videos)}."
        )
    if _holds_lists_of_frame_paths(videos):
        return [list(paths) for sample in videos for paths in sample]
    clips = [clip for item in videos for clip in flatten_videos(item)]
    if not clips:
        raise ValueError("There is no video in the input; pass at least one clip with at least one frame.")
    return clips


def metadata_of(clips: list[Any], given: Any) -> list[VideoMetadata]:
    """Return the metadata of each clip: what was `given` (one, a list or lists of lists), else what the clip shows.

    Raises ValueError where the numbers of clips and of entries differ.
    """
    if given is None:
        return [_inferred(clip) for clip in clips]
    entries = given if isinstance(given, list) else [given]
    flat = [entry for item in entries for entry in (item if isinstance(item, list) else [item])]
    if len(flat) != len(clips):
        raise ValueError(
            f"Received {len(clips)} videos but {len(flat)} `video_metadata` entries; pass one entry per video"
        )
    return [VideoMetadata(**dict(entry)) if not isinstance(entry, VideoMetadata) else entry for entry in flat]


def _inferred(clip: Any) -> VideoMetadata:
    height = width = None
    if not isinstance(clip, list) and not is_source(clip):
        first = clip.shape[1] in (1, 3, 4)
        height, width = (clip.shape[2:4]) if first else clip.shape[1:3]
    count = 0 if is_source(clip) else len(clip)
    return VideoMetadata(count, height=height, width=width, frames_indices=list(range(count)))


def is_source(value: Any) -> bool:
    """Whether a clip has to be read from a file, URL or bytes."""
    return isinstance(value, (str, bytes, os.PathLike)) or (hasattr(value, "read") and hasattr(value, "seek"))


def is_image(value: Any) -> bool:
    """Whether `value` is a PIL image, a NumPy array or a torch tensor."""
    return is_pil_image(value) or is_array(value)


def _is_frame(value: Any) -> bool:
    return is_pil_image(value) or (is_array(value) and value.ndim == 3)


def _is_clip(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(map(_is_frame, value))
    return is_array(value) and value.ndim == 4


def _as_array(frame: Any) -> Any:
    if not is_pil_image(frame):
        return frame
    pixels = np.asarray(frame)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _stacked(clip: Any) -> Any:
    if not isinstance(clip, (list, tuple)):
        return clip
    frames = [_as_array(frame) for frame in clip]
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) > 1:
        raise ValueError(f"the frames of a video must have one size, got shapes {sorted(shapes)}")
    if isinstance(frames[0], np.ndarray):
        return np.stack(frames)
    import torch

    return torch.stack(frames)


def _holds_lists_of_frame_paths(videos: Any) -> bool:
    try:
        return isinstance(videos[0][0], (list, tuple)) and isinstance(videos[0][0][0], str)
    except (IndexError, TypeError, KeyError):
        return False
