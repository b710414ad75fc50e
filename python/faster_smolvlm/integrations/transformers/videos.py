"""What the accelerated video processor does differently: pixels from Rust, and decoding if Transformers cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from ...media.errors import MediaDecodeError
from ...media.source import read_source
from ...media.video_reader import VideoReader
from ...pixels.settings import Reader
from ...pixels.sources import naming
from ...pixels.video_processing_smolvlm import SmolVLMVideoProcessor
from . import pixels
from .gate import GateMixin
from .images import inherited_class, lanczos_is_bicubic
from .notes import say_once
from .versions import UnsupportedTransformersError

if TYPE_CHECKING:
    import torch
    from transformers.image_processing_utils import BatchFeature

    from ...media.kinds import MediaSource
    from ...media.policy import MediaPolicy
    from ...media.video import Sampler

    # The frames and the `VideoMetadata` of a clip; of a list of clips, all frames and all metadata.
    Fetched = tuple[object, object] | list[tuple[object, ...]]

    class _Base(GateMixin):
        """What the mixin uses of Transformers' class that it stands before."""

        max_image_size: dict[str, int]

        def _preprocess(self, videos: list[torch.Tensor], **kwargs: object) -> BatchFeature: ...
        def fetch_videos(
            self, video_url_or_urls: MediaSource | list[MediaSource], sample_indices_fn: Sampler | None = None
        ) -> Fetched: ...
else:
    _Base = GateMixin


class VideoProcessorMixin(_Base):
    """Comes before Transformers' `SmolVLMVideoProcessor`."""

    def _preprocess(self, videos: list[torch.Tensor], **kwargs: object) -> BatchFeature:
        inherited = super()._preprocess
        bicubic = lanczos_is_bicubic(inherited_class(self))
        settings, reason = pixels.settings_for(kwargs, lanczos_is_bicubic=bicubic, reader=Reader.CLIPS)
        if not reason:
            reason = next(filter(None, map(_why_not, videos)), "")
        if reason:
            say_once(f"{type(self).__name__} leaves this call to Transformers: {reason}")
            return inherited(videos, **kwargs)
        ours = _video_processor(self.max_image_size["longest_edge"])
        found = ours.preprocess([video.numpy() for video in videos], input_data_format="channels_first", **settings)
        return pixels.batch_feature(dict(found))

    def fetch_videos(
        self, video_url_or_urls: MediaSource | list[MediaSource], sample_indices_fn: Sampler | None = None
    ) -> Fetched:
        """Decode a video, or each of a list, with PyAV if Transformers has no decoder at hand.

        The gate opens each first, with `media_policy`; what is fetched or encoded in a text becomes a temporary file
        for a decoder of Transformers. Returns frames, uint8 (frames, height, width, 3), and their `VideoMetadata`.
        Raises a `MediaError` that names the clip.
        """
        if isinstance(video_url_or_urls, list):
            clips = enumerate(video_url_or_urls)
            return list(zip(*[self._named(index, clip, sample_indices_fn) for index, clip in clips], strict=True))
        if not _has_decoder():
            return self._decoded(video_url_or_urls, sample_indices_fn)
        inherited = super().fetch_videos
        if not isinstance(video_url_or_urls, str):
            return inherited(video_url_or_urls, sample_indices_fn=sample_indices_fn)
        with _checked(video_url_or_urls, self.media_policy) as (path, label):
            try:
                return inherited(path, sample_indices_fn=sample_indices_fn)
            except RuntimeError:  # what a decoder says may hold addresses
                raise MediaDecodeError(f"{label} is a clip that Transformers' decoder cannot read") from None

    def _named(self, index: int, clip: MediaSource, sampler: Sampler | None) -> tuple[object, object]:
        with naming(f"video {index}"):
            frames, metadata = self.fetch_videos(clip, sampler)
            return frames, metadata

    def _decoded(self, clip: MediaSource, sampler: Sampler | None) -> Fetched:
        from transformers.video_utils import VideoMetadata

        from ...media.video import load_video

        frames, metadata = load_video(clip, sample_indices_fn=sampler, policy=self.media_policy, rotate=True)
        return frames, VideoMetadata(**metadata)


@contextmanager
def _checked(text: str, policy: MediaPolicy) -> Iterator[tuple[str, str]]:
    """Open a clip at the gate, and yield the path of its file and what messages call it."""
    found = read_source(text, policy, "clip")
    if found.path is not None:
        VideoReader(found.path, policy=policy)
        yield found.path, found.label
        return
    with naming(found.label):
        VideoReader(found.data or b"", policy=policy)
    with NamedTemporaryFile(prefix="clip-") as file:
        file.write(found.data or b"")
        file.flush()
        yield file.name, found.label


def mixin_for(base: type) -> type[_Base]:
    """Return what to put before a video processor class of Transformers; raises UnsupportedTransformersError."""
    if not hasattr(base, "_preprocess") or not hasattr(base, "fetch_videos"):
        raise UnsupportedTransformersError(f"{base.__name__} has no step that makes pixels of decoded videos")
    return VideoProcessorMixin


@lru_cache(maxsize=8)
def _video_processor(tile: int) -> SmolVLMVideoProcessor:
    return SmolVLMVideoProcessor(max_image_size={"longest_edge": tile}, media_policy=pixels.OPEN_POLICY)


def _why_not(video: torch.Tensor) -> str:
    if video.ndim != 4 or video.shape[1] != 3 or str(video.dtype) != "torch.uint8" or video.device.type != "cpu":
        return (
            f"a video is {video.dtype} {tuple(video.shape)} on {video.device}, "
            "where the Rust core is bit-equal for uint8 RGB on the CPU only"
        )
    return ""


def _has_decoder() -> bool:
    """Whether Transformers can decode a file itself."""
    import importlib.util

    if importlib.util.find_spec("torchcodec") is not None:
        from transformers.utils import import_utils

        usable = getattr(import_utils, "is_torchcodec_usable", None)
        return bool(usable(decode="video")) if usable is not None else bool(import_utils.is_torchcodec_available())
    import torchvision

    return hasattr(torchvision.io, "read_video")
