"""The pixels of a call, and what the prompt has to know about its pictures and clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Any

from ..media.video_metadata import VideoMetadata
from ..pixels.call_settings import Settings
from ..pixels.protocols import ImageProcessor, VideoProcessor
from ..text import conversation as chat
from ..text.placeholders import Clip, Grid

_LOG = logging.getLogger(__name__)

Pixels = dict[str, Any]
"""`pixel_values` and `pixel_attention_mask`, in the containers that the call asks for."""


def picture_features(
    processor: ImageProcessor, images: Sequence[Sequence[object]] | None, settings: Settings
) -> tuple[Pixels, list[Grid]]:
    """Return the pixels of pictures, and the grid of each picture in order."""
    if images is None or (images and not any(images)):
        return {}, []
    features = dict(processor(images, **{**settings, "return_row_col_info": True}))
    rows, cols = features.pop("rows"), features.pop("cols")
    grids = [
        (int(row), int(col))
        for sample_rows, sample_cols in zip(rows, cols, strict=True)
        for row, col in zip(sample_rows, sample_cols, strict=True)
    ]
    return features, grids


def clip_features(processor: VideoProcessor, videos: object, settings: Settings) -> tuple[Pixels, list[Clip]]:
    """Return the pixels of clips, and when the frames of each clip were taken."""
    features = dict(processor(videos, **{**settings, "return_metadata": True}))
    metadata: list[VideoMetadata] = features.pop("video_metadata")
    padded = max(len(frames) for frames in features["pixel_values"])
    return features, [_clip(entry, padded) for entry in metadata]


def count_frames_by_prompt(clips: list[Clip], clips_per_prompt: Sequence[int] | None) -> list[Clip]:
    """Let each clip count the frames of the longest one of its prompt; None leaves that of the call."""
    if clips_per_prompt is None:
        return clips
    if sum(clips_per_prompt) != len(clips):
        raise ValueError(f"clips_per_prompt counts {sum(clips_per_prompt)} clips, the call has {len(clips)}")
    found, rest = [], iter(clips)
    for count in clips_per_prompt:
        own = [*islice(rest, count)]
        lengths = [clip.padded_frames if clip.frames_indices is None else len(clip.frames_indices) for clip in own]
        found += [clip._replace(padded_frames=max(lengths)) for clip in own]
    return found


def _clip(metadata: VideoMetadata, padded_frames: int) -> Clip:
    fps = metadata.fps
    if fps is None:
        _LOG.warning(
            "SmolVLM requires frame timestamps to construct prompts, but the `fps` of the input video could not be "
            "inferred. Probably `video_metadata` was missing from inputs and you passed pre-sampled frames. "
            "Defaulting to `fps=24`. Please provide `video_metadata` for more accurate results."
        )
        fps = 24
    indices = metadata.frames_indices
    return Clip(fps, metadata.duration, None if indices is None else [int(index) for index in indices], padded_frames)


def media_of(
    conversations: Sequence[chat.Conversation], given_images: Sequence[object] | None
) -> dict[str, list[object] | None]:
    """Return the `images` and `videos` of conversations, `given_images` instead of the pictures in them."""
    found = [chat.media(conversation) for conversation in conversations]
    images = list(given_images or [pictures for pictures, _ in found])
    videos: list[object] = [clips for _, clips in found]
    return {"images": images if any(images) else None, "videos": videos if any(videos) else None}
