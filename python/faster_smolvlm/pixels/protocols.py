"""What a processor needs of its two parts: one for pictures, one for clips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..batch_feature import BatchFeature
from ..media import FrameSampling, MediaPolicy
from .plan import ImagePlan

if TYPE_CHECKING:
    from ..media.video import Sampler, VideoReader


class MediaProcessor(Protocol):
    """What both parts have."""

    media_policy: MediaPolicy

    @property
    def model_input_names(self) -> list[str]:
        """The names of what a call returns for the model."""

    def to_dict(self) -> dict[str, object]:
        """Return the settings as a dict that JSON can hold."""


class ImageProcessor(MediaProcessor, Protocol):
    """Turns pictures into `pixel_values` (samples, frames, channels, tile, tile)."""

    def __call__(self, images: object, **kwargs: object) -> BatchFeature:
        """Return the frames of pictures; with `return_row_col_info` the grids `rows` and `cols` too."""

    def plan(self, width: int, height: int, *, image_seq_len: int = 64, **kwargs: object) -> ImagePlan:
        """Return the grid of a picture of this size, without its pixels."""


class VideoProcessor(MediaProcessor, Protocol):
    """Turns clips into `pixel_values` (clips, frames, channels, height, width)."""

    num_frames: int | None
    fps: float | None
    frame_sampling: FrameSampling | None
    threads: int

    def __call__(self, videos: object, **kwargs: object) -> BatchFeature:
        """Return the frames of clips; with `return_metadata` the list `video_metadata` too."""

    def sampler(
        self, reader: VideoReader, *, num_frames: int | None, fps: float | None, frame_sampling: FrameSampling | None
    ) -> Sampler:
        """Return what chooses the frames of a file."""
