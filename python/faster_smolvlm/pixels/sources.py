"""Opening what pictures come from, with errors that say which picture they are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..media import MediaPolicy, load_image
from .arithmetic import Array


@contextmanager
def naming(which: str) -> Iterator[None]:
    """Say in errors which picture or clip they are about."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise type(error)(f"{which}: {error}") from None


def load_pictures(images: object, policy: MediaPolicy) -> Any:
    """Replace paths, URLs, data URIs, base64 strings and bytes, at any depth, by decoded pictures."""
    if not isinstance(images, (list, tuple)):
        return load_image(images, policy)
    return [_load_item(item, index, policy) for index, item in enumerate(images)]


def _load_item(item: object, index: int, policy: MediaPolicy) -> Any:
    with naming(f"image {index}"):
        return load_pictures(item, policy)


def load_frames(paths: Sequence[object], policy: MediaPolicy) -> list[Array]:
    """Return the frames of a clip that come one by one; ValueError if their sizes differ."""
    frames = [np.asarray(load_image(path, policy)) for path in paths]
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"the frames of a video must have one size, got {sorted({f.shape[:2] for f in frames})}")
    return frames
