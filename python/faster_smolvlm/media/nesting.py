"""Which pictures and clips of a call belong to which prompt."""

from __future__ import annotations

from typing import Any

from .image import is_pil_image
from .video_inputs import is_image, is_source


def nest_images(images: Any) -> list[list[Any]]:
    """Return the pictures of each prompt.

    A single picture, a flat list of pictures or one 4-D array belong to one prompt; a list of lists or of 4-D arrays
    holds one entry per prompt. Paths, URLs and bytes count as pictures. Nothing is opened. Raises ValueError for an
    array of more dimensions.
    """
    if not isinstance(images, (list, tuple)):
        return [_images_of(images)]
    if all(isinstance(sample, (list, tuple)) for sample in images):
        return [list(sample) for sample in images]
    if images and _ndim(images[0]) == 4:
        return [_images_of(sample) for sample in images]
    return [list(images)]


def nest_pictures(images: Any) -> list[list[Any]]:
    """Return decoded pictures as samples: one picture or a flat list is one sample, a list of lists a batch.

    An array with four dimensions is a sample. Raises ValueError for any other shape, and where there is no picture.
    """
    nested = _nest_decoded(images)
    if not any(len(sample) for sample in nested):
        raise ValueError("No images found in the batch; pass at least one picture.")
    return nested


def _nest_decoded(images: Any) -> list[list[Any]]:
    if isinstance(images, (list, tuple)):
        if all(isinstance(sample, (list, tuple)) and all(map(is_image, sample)) for sample in images):
            return [list(sample) for sample in images]
        if all(map(is_image, images)):
            if is_pil_image(images[0]) or images[0].ndim == 3:
                return [list(images)]
            if images[0].ndim == 4:
                return [list(image) for image in images]
    elif is_image(images):
        if is_pil_image(images) or images.ndim == 3:
            return [[images]]
        if images.ndim == 4:
            return [list(images)]
    raise ValueError("Invalid input type. Must be a single image, a list of images, or a list of batches of images.")


def count_videos(videos: Any) -> int:
    """Return how many clips `videos` holds.

    A clip is a path, URL, bytes or open file, a 4-D array, a list of frames (pictures), a list of frame paths three
    lists deep, or a single frame; lists may be nested. Nothing is opened. Raises ValueError for what is none of these.
    """
    if not isinstance(videos, (list, tuple)):
        if is_source(videos) or _is_frame(videos):
            return 1
        dims = _ndim(videos)
        if dims in (4, 5):
            return 1 if dims == 4 else len(videos)
        raise ValueError(
            "Invalid video input. Expected either a list of video frames or an input of 4 or 5 dimensions, but got "
            f"type {type(videos)}."
        )
    if _holds_lists_of_frame_paths(videos):
        return sum(len(sample) for sample in videos)
    if videos and all(_is_frame(frame) for frame in videos):
        return 1
    return sum(count_videos(video) for video in videos)


def _images_of(sample: Any) -> list[Any]:
    dims = _ndim(sample)
    if dims is not None and dims > 4:
        raise ValueError(
            "Invalid input type. Must be a single image, a list of images, or a list of batches of images."
        )
    return list(sample) if dims == 4 else [sample]


def _holds_lists_of_frame_paths(videos: Any) -> bool:
    for level in range(3):
        if not isinstance(videos, (list, tuple)) or not videos:
            return False
        videos = videos[0]
        if level < 2 and isinstance(videos, str):
            return False
    return isinstance(videos, str)


def _is_frame(value: Any) -> bool:
    return _ndim(value) == 3 or (hasattr(value, "convert") and hasattr(value, "size"))


def _ndim(value: Any) -> int | None:
    dims = getattr(value, "ndim", None)
    return dims if isinstance(dims, int) else None
