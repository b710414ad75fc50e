"""From what a caller passes as pictures and clips to lists: which belong to which prompt, and what is one clip.

Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from .kinds import FIRST, channel_layout, dimensions, is_array, is_frame, is_picture, is_pil_image, is_source, is_tensor
from .video_metadata import VideoMetadata

if TYPE_CHECKING:
    from .kinds import AnyArray, MediaSource, Picture

    Clip = MediaSource | AnyArray | list[object]
    GivenClip = Clip | Picture | tuple[object, ...]

_CHANNELS = (1, 3, 4)
_NO_PICTURES = "Invalid input type. Must be a single image, a list of images, or a list of batches of images."


def nest_images(images: object) -> list[list[object]]:
    """Return the pictures of each prompt.

    A single picture, a flat list of pictures or one 4-D array belong to one prompt; a list of lists or of 4-D arrays
    holds one entry per prompt. Sources count as pictures. Raises ValueError for an array of more dimensions.
    """
    if not isinstance(images, (list, tuple)):
        return [_pictures_of(images)]
    if all(isinstance(sample, (list, tuple)) for sample in images):
        return [list(sample) for sample in images]
    if images and dimensions(images[0]) == 4:
        return [_pictures_of(sample) for sample in images]
    return [list(images)]


def nest_pictures(images: object) -> list[list[Picture]]:
    """As `nest_images` for decoded pictures only; raises ValueError for anything else, and if there is no picture."""
    samples = nest_images(images)
    first = images[0] if isinstance(images, (list, tuple)) and images else images
    if is_array(first) and first.ndim not in (3, 4):
        raise ValueError(_NO_PICTURES)
    nested = [[image for image in sample if is_picture(image)] for sample in samples]
    if list(map(len, nested)) != list(map(len, samples)):
        raise ValueError(_NO_PICTURES)
    if not any(nested):
        raise ValueError("No images found in the batch; pass at least one picture.")
    return nested


def _pictures_of(sample: object) -> list[object]:
    if not is_array(sample):
        return [sample]
    if sample.ndim > 4:
        raise ValueError(_NO_PICTURES)
    return list(sample) if sample.ndim == 4 else [sample]


def count_videos(videos: object) -> int:
    """Return how many clips `flatten_videos` finds; none is no error here."""
    return len(_clips(videos))


def flatten_videos(videos: object) -> list[Clip]:
    """Return one entry per clip: a source, a 4-D array or tensor, or a list of the sources of its frames.

    A list of frames (pictures, arrays of 2 or 3 dimensions) is one clip, a list of clips or a 5-D array several, a
    single frame a clip of one; an array of 3 dimensions, none of them of channels, is a clip of grey frames. Lists may
    be nested. A list of sources is a list of clips, but three lists deep (a
    batch of prompts with clips of frames) it holds the frames of one clip. Raises ValueError for anything else, and if
    there is no clip.
    """
    clips = [_as_clip(clip) for clip in _clips(videos)]
    if not clips:
        raise ValueError("There is no video in the input; pass at least one clip with at least one frame.")
    return clips


def _clips(videos: object, depth: int = 0) -> list[GivenClip]:
    """Return the clips as they were given; `depth` counts the lists around `videos`."""
    if is_source(videos) or (is_frame(videos) and dimensions(videos) != 2):  # one matrix alone may be anything
        return [videos]
    if is_array(videos) and videos.ndim in (4, 5):
        return [videos] if videos.ndim == 4 else list(videos)
    if not isinstance(videos, (list, tuple)):
        raise ValueError(
            "Invalid video input. Expected either a list of video frames or an input of 4 or 5 dimensions, but got "
            f"type {type(videos)}."
        )
    if videos and (all(map(is_frame, videos)) or (depth > 1 and is_source(videos[0]))):
        return [videos]
    return [clip for item in videos for clip in _clips(item, depth + 1)]


def _as_clip(clip: GivenClip) -> Clip:
    if isinstance(clip, (list, tuple)):
        # PIL images are converted later, where the policy is known.
        arrays = [frame for frame in clip if is_array(frame) and frame.ndim < 4]
        return _stacked(arrays) if len(arrays) == len(clip) else list(clip)
    if is_pil_image(clip):
        return [clip]
    if is_array(clip) and clip.ndim < 4:
        grey = clip.ndim == 3 and channel_layout(clip.shape, _CHANNELS) is None  # (frames, height, width)
        return clip[..., None] if grey else _as_array(clip)[None]
    return cast("Clip", clip)  # an array of four dimensions, or a source


def _as_array(frame: AnyArray) -> AnyArray:
    return frame[..., None] if frame.ndim == 2 else frame


def _stacked(arrays: Sequence[AnyArray]) -> AnyArray:
    frames = [_as_array(array) for array in arrays]
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) > 1:
        raise ValueError(f"the frames of a video must have one size, got shapes {sorted(shapes)}")
    if is_tensor(frames[0]):
        import torch

        return torch.stack(cast("list[torch.Tensor]", frames))
    return np.stack(cast("list[npt.NDArray[np.generic]]", frames))


def metadata_of(clips: Sequence[Clip], given: Any) -> list[VideoMetadata]:
    """Return the metadata of each clip: what was `given` (one, a list or lists of lists), else what the clip shows.

    Raises ValueError if the numbers of clips and of entries differ.
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


def clip_layout(clip: AnyArray) -> str:
    """Return which dimension of a 4-D array holds the channels, 1 or 3: the second if both can.

    Returns "channels_first" or "channels_last"; raises ValueError if neither dimension can.
    """
    layout = channel_layout(clip.shape, (1, 3))
    if layout is None:
        raise ValueError(
            f"Unable to infer channel dimension format: a video of shape {tuple(clip.shape)} has neither 1 nor 3 "
            "channels; for 4 (RGBA, blended onto white) pass input_data_format='channels_last' or 'channels_first'"
        )
    return layout


def _inferred(clip: Clip) -> VideoMetadata:
    if is_source(clip):
        return VideoMetadata(0, frames_indices=[])
    count, height, width = len(clip), None, None
    first = clip[0] if isinstance(clip, list) else None
    if is_pil_image(first):
        width, height = first.size
    if is_array(clip):
        sides = clip.shape[2:4] if channel_layout(clip.shape, (1, 3, 4)) == FIRST else clip.shape[1:3]
        height, width = sides
    return VideoMetadata(count, height=height, width=width, frames_indices=list(range(count)))
