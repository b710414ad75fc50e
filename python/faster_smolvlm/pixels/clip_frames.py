"""From the frames of one clip to pixels, a frame at a time, on several threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .. import _rust
from ..media import MediaPolicy
from ..media.kinds import LAST
from ..media.video import Sampler, VideoReader
from ..media.video_metadata import VideoMetadata
from ..quoting import shown
from .arithmetic import Array, Torch
from .call_settings import KEEP_SIZE, ResizeTarget, Settings, target_of_size
from .conversion import conversion, rescaling
from .output import check_clips
from .planes import to_planes

if TYPE_CHECKING:
    import av

    from ..media.kinds import AnyArray

MAX_LONGEST_EDGE = 4096
_ARITHMETIC = Torch()


class FramePixels:
    """Resizes to the longest edge, then to (tile, tile), rescales and normalises, as `settings` say."""

    def __init__(self, settings: Settings, tile: int) -> None:
        self._settings, self._tile = settings, tile
        self._policy: MediaPolicy = settings["media_policy"]
        self._bytes = 0
        self._target = _target(settings["size"]) if settings["do_resize"] else KEEP_SIZE

    def of_file(self, reader: VideoReader, sampler: Sampler, fast: bool) -> tuple[Array, VideoMetadata]:
        """Decode the sampled frames, each straight into its part of the result (frames, 3, height, width)."""
        out: list[Array | None] = []

        def sampled(metadata: VideoMetadata) -> npt.ArrayLike:
            indices = sampler(metadata=metadata)
            out[:] = [self._allocate(len(np.unique(indices)), metadata.height or 1, metadata.width or 1)]
            return indices

        def convert(index: int, frame: av.VideoFrame) -> Array:
            target = None if out[0] is None else out[0][index]
            if fast and target is not None:
                return self._of_rgb(reader.to_rgb(frame, side=self._tile), target, KEEP_SIZE)
            return self._of_rgb(reader.to_rgb(frame), target, self._target)

        frames, metadata = reader.read(sampled, convert)
        return self._joined(frames, out[0]), metadata

    def of_array(self, clip: Sequence[AnyArray] | AnyArray, layout: str, pool: Executor) -> Array:
        """Convert frames of any type, whose channels `layout` locates; returns (frames, 3, height, width)."""
        height, width = clip[0].shape[:2] if layout == LAST else clip[0].shape[1:]
        out = self._allocate(len(clip), height, width)

        def of_frame(index: int) -> Array:
            planes = to_planes(
                clip[index], do_convert_rgb=self._settings["do_convert_rgb"], input_data_format=layout, rgba=_on_white
            )
            target = None if out is None else out[index]
            if planes.dtype == np.uint8 and planes.shape[0] == 3:
                return self._of_rgb(np.ascontiguousarray(planes.transpose(1, 2, 0)), target, self._target)
            return self._of_planes(planes)

        return self._joined(list(pool.map(of_frame, range(len(clip)))), out)

    def _joined(self, frames: list[Array], out: Array | None) -> Array:
        """Return the frames as one array: `out` itself if each of them was written into it."""
        written = out is not None and len(frames) == len(out) and all(map(_same_memory, frames, out))
        joined = out if out is not None and written else np.stack(frames)
        self._bytes += joined.nbytes
        return joined

    def _of_rgb(self, rgb: Array, out: Array | None, target: ResizeTarget) -> Array:
        """Convert uint8 (height, width, 3) natively; resized to `target` and to the tile if there is an `out`."""
        table, formula = conversion(_ARITHMETIC, 3, self._settings)
        if out is None:
            return np.stack([table[channel][rgb[..., channel]] for channel in range(3)])
        settings = _rust.ImageSettings(
            _rust.ImageSizes(tile=self._tile, split=False, **target),
            resample=int(self._settings["resample"]),
            arithmetic=_ARITHMETIC.name,
            table=table,
            formula=formula,
        )
        _rust.preprocess([rgb], [0], out[None], settings)
        return out

    def _of_planes(self, planes: Array) -> Array:
        """Pixels of any other type, in single steps."""
        if self._settings["do_resize"]:
            sizes = _rust.ImageSizes(tile=self._tile, split=False, **self._target)
            (height, width), *_ = _rust.layout(*planes.shape[1:], sizes=sizes)
            for side in ((height, width), (self._tile, self._tile)):
                planes = _ARITHMETIC.resize(planes, *side, self._settings["resample"])
        return _ARITHMETIC.rescale_and_normalize(planes, *rescaling(self._settings))

    def _allocate(self, count: int, height: int, width: int) -> Array | None:
        """Return a buffer for frames of known size, None if it is not known; refuse more than the policy allows."""
        if self._settings["do_resize"]:
            height = width = self._tile
        check_clips(count, height, width, self._policy, before=self._bytes)
        return _rust.empty((count, 3, height, width), "float32") if self._settings["do_resize"] else None


def _target(size: object) -> ResizeTarget:
    try:
        target = target_of_size(size)
    except ValueError:
        raise ValueError(
            f"Size must contain 'height' and 'width' keys, or 'longest_edge' key. Got {shown(size)}."
        ) from None
    if target["longest_edge"] is not None:
        target["longest_edge"] = min(MAX_LONGEST_EDGE, target["longest_edge"])
    return target


def _same_memory(frame: Array, target: Array) -> bool:
    """Whether a frame was written into its part of the result."""
    return frame.ctypes.data == target.ctypes.data


def _on_white(planes: Array) -> Array:
    """Blend (4, height, width) onto white, in float32 and not rounded; opaque frames only lose their alpha."""
    if not (planes[3] < 255).any():
        return planes[:3]
    alpha = planes[3:].astype(np.float32) / np.float32(255)
    blended: Array = (np.float32(1) - alpha) * np.float32(255) + alpha * planes[:3]
    return blended
