"""Clips: one in, RGB frames out; only the frames asked for are decoded and kept (see `VideoReader`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from .. import _rust
from ..unknown_names import check_names, parameters_of
from .image import joined, load_frames
from .kinds import MediaSource, is_source
from .limits import check_decoded_clip
from .nesting import flatten_videos, metadata_of
from .policy import MediaPolicy
from .sampling import FrameSampling
from .video_metadata import VideoMetadata
from .video_reader import Sampler, VideoReader

if TYPE_CHECKING:
    from .kinds import AnyArray

__all__ = ["Sampler", "VideoMetadata", "VideoReader", "default_sample_indices_fn", "load_video"]


# What callers of Transformers pass to `load_video` and what has no meaning here.
_IGNORED = frozenset({"backend"})


@overload
def load_video(
    video: MediaSource,
    num_frames: int | None = None,
    fps: float | None = None,
    sample_indices_fn: Sampler | None = None,
    *,
    sampling: FrameSampling | None = None,
    policy: MediaPolicy | None = None,
    threads: int | None = None,
    rotate: bool = False,
    **kwargs: object,
) -> tuple[npt.NDArray[np.uint8], VideoMetadata]: ...
@overload
def load_video(
    video: object,
    num_frames: int | None = None,
    fps: float | None = None,
    sample_indices_fn: Sampler | None = None,
    *,
    sampling: FrameSampling | None = None,
    policy: MediaPolicy | None = None,
    threads: int | None = None,
    rotate: bool = False,
    **kwargs: object,
) -> tuple[AnyArray, VideoMetadata]: ...
def load_video(
    video: object,
    num_frames: int | None = None,
    fps: float | None = None,
    sample_indices_fn: Sampler | None = None,
    *,
    sampling: FrameSampling | None = None,
    policy: MediaPolicy | None = None,
    threads: int | None = None,
    rotate: bool = False,
    **kwargs: object,
) -> tuple[AnyArray, VideoMetadata]:
    """Read a video, or the frames of it that are asked for.

    `video` is a path, http(s) URL, data URI, base64 string, bytes-like object or a binary file; or a clip that is
    decoded already: an array or tensor (frames, height, width, channels) or (frames, channels, height, width), or a
    list of pictures of one size. `num_frames` frames at equal distance, `fps` frames per second, those whose indices
    ``sample_indices_fn(metadata=VideoMetadata, **kwargs)`` returns, or those that `sampling` takes; without any of them
    every frame. `threads` and `rotate` are those of `VideoReader`.

    Returns uint8 frames (frames, height, width, 3), RGB, and the `VideoMetadata`; frames of an array or tensor keep
    their type and layout, and their frame rate is not known. Raises ValueError if several rules are given, if more
    frames are asked for than there are, and for what is not one clip; TypeError for `kwargs` without a
    `sample_indices_fn` that reads them; a `MediaError` as `VideoReader`.
    """
    given = [num_frames is not None, fps is not None, sampling is not None]
    if sum(given) > 1 and sample_indices_fn is None:
        raise ValueError(
            "`num_frames`, `fps`, `sample_indices_fn` and `sampling` are mutually exclusive arguments, please use "
            "only one!"
        )
    if sample_indices_fn is None:
        check_names(kwargs.keys() - _IGNORED, parameters_of(load_video))
    sampler: Sampler = partial(
        sample_indices_fn or partial(default_sample_indices_fn, num_frames=num_frames, fps=fps), **kwargs
    )
    rule = sampling if sample_indices_fn is None else None
    clip = video if is_source(video) else _only_clip(video)
    if is_source(clip):
        reader = VideoReader(clip, policy=policy, threads=threads, rotate=rotate)
        return reader.frames(sampler if rule is None else lambda metadata: reader.sample(rule))
    return _choose(clip, sampler, rule, policy or MediaPolicy())


def _only_clip(video: object) -> MediaSource | AnyArray | list[object]:
    clips = flatten_videos(video)
    if len(clips) > 1:
        raise ValueError(f"expected one video, got {len(clips)}")
    return clips[0]


def _choose(
    clip: AnyArray | list[object], sampler: Sampler, rule: FrameSampling | None, policy: MediaPolicy
) -> tuple[AnyArray, VideoMetadata]:
    """Return the frames of a decoded clip that are asked for."""
    frames = joined(load_frames(clip, policy)) if isinstance(clip, list) else clip
    check_decoded_clip(frames, policy)
    (metadata,) = metadata_of([frames], None)
    if rule is None:
        indices = np.asarray(sampler(metadata=metadata))
    elif rule.fps is not None:
        raise ValueError(f"sampling={rule} needs the frame rate, which an array does not tell; pass num_frames=…")
    else:
        indices = rule.choose(range(len(frames)))
    metadata.frames_indices = indices
    return frames[indices], metadata


def default_sample_indices_fn(
    metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **unused: object
) -> npt.NDArray[np.int64]:
    """Return the indices of `num_frames` frames at equal distance, of `fps` frames per second, or of every frame."""
    total = metadata.total_num_frames
    if num_frames is not None:
        return np.array(_rust.uniform_frames(total, num_frames), dtype=np.int64)
    if fps is None:
        return np.arange(total)
    if metadata.fps is None:
        raise ValueError(
            f"Asked for fps={fps} frames per second, but the frame rate of the video is unknown; pass num_frames=…"
        )
    return np.array(_rust.frames_at_rate(total, metadata.fps, fps), dtype=np.int64)
