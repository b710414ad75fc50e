"""Opening what pictures come from, with errors that say which picture they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..media import MediaPolicy, load_image

if TYPE_CHECKING:
    from ..media.kinds import Picture


@contextmanager
def naming(which: str) -> Iterator[None]:
    """Say in errors which picture or clip they are about."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise type(error)(f"{which}: {error}") from None


def load_pictures(images: object, policy: MediaPolicy) -> Picture | list[object]:
    """Replace sources (paths, URLs, bytes, files …), at any depth, by decoded pictures."""
    if not isinstance(images, (list, tuple)):
        return load_image(images, policy)
    return [_load_item(item, index, policy) for index, item in enumerate(images)]


def _load_item(item: object, index: int, policy: MediaPolicy) -> object:
    with naming(f"image {index}"):
        return load_pictures(item, policy)
