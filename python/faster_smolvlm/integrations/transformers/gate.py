"""What comes from outside passes our gate in accelerated processors too: paths, URLs, data URIs and base64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...media.policy import MediaPolicy
from ...pixels.sources import naming
from . import reading

if TYPE_CHECKING:

    class _Base:
        """What the mixin uses of Transformers' classes that it stands before."""

        def fetch_images(self, images: object) -> object: ...
        def to_dict(self) -> dict[str, object]: ...
else:
    _Base = object


class GateMixin(_Base):
    """Comes before an image or video processor of Transformers, and reads pictures for it."""

    media_policy: MediaPolicy = MediaPolicy()
    """What pictures and clips that are read from a path, URL, data URI or base64 text may be. An attribute that may be
    set at any time, such as to `MediaPolicy.strict()`; it is not saved. What is in memory already has no limits."""

    def fetch_images(self, images: object) -> object:
        """Read the pictures that are given as texts, at any depth of lists; others are returned as they are.

        The result is of the kind, and has the pixels, that Transformers' own reader gives. Raises a `MediaError`, and
        TypeError for what Transformers does not read.
        """
        return self._read(images, 0)

    def to_dict(self) -> dict[str, object]:
        """Return the settings that are saved: those of Transformers."""
        settings = super().to_dict()
        settings.pop("media_policy", None)
        return settings

    def _read(self, images: object, depth: int) -> object:
        if isinstance(images, (list, tuple)):
            return [self._read_item(item, index, depth + 1) for index, item in enumerate(images)]
        if not isinstance(images, str):
            return super().fetch_images(images)
        if getattr(self, "backend", "") == "torchvision" and reading.reads_tensors():
            return reading.read_tensor(images, self.media_policy, only_first=depth > 1)
        return reading.read_pillow(images, self.media_policy)

    def _read_item(self, item: object, index: int, depth: int) -> object:
        if not isinstance(item, (list, tuple, str)):
            return self._read(item, depth)
        with naming(f"image {index}"):
            return self._read(item, depth)
