"""From the frames of one clip to pixels, a frame at a time, on several threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from .. import _rust
from ..media import MediaLimitError, MediaPolicy
from ..media.video import Sampler, VideoReader
from ..media.video_metadata import VideoMetadata
from .arithmetic import Array, Torch
from .image_processing_base import conversion, rescaling
from .planes import to_planes
from .settings import target_size

MAX_LONGEST_EDGE = 4096
_ARITHMETIC = Torch()
_KEEP: dict[str, Any] = {"longest_edge": None, "exact": None}


class FramePixels:
    """Resizes to the longest edge, then to (tile, tile), rescales and normalises, as `settings` say."""

    def __init__(self, settings: dict[str, Any], tile: int, policy: MediaPolicy) -> None:
        self._settings, self._tile, self._policy = settings, tile, policy
        self._taken = 0
        self._target = _target(settings["size"]) if settings["do_resize"] else _KEEP

    def of_file(self, reader: VideoReader, sampler: Sampler, fast: bool) -> tuple[Array, VideoMetadata]:
        """Decode the sampled frames, each straight into its place; returns (frames, 3, height, width)."""
        out: list[Array | None] = []

        def sampled(metadata: VideoMetadata) -> Any:
            indices = sampler(metadata=metadata)
            out[:] = [self._allocate(len(np.unique(indices)), metadata.height or 1, metadata.width or 1)]
            return indices

        def convert(rank: int, frame: Any) -> Array:
            place = None if out[0] is None else out[0][rank]
            if fast and place is not None:
                return self._of_rgb(reader.to_rgb(frame, side=self._tile), place, _KEEP)
            return self._of_rgb(reader.to_rgb(frame), place, self._target)

        frames, metadata = reader.read(sampled, convert)
        return self._joined(frames, out[0]), metadata

    def of_array(self, clip: Sequence[Any], layout: str, pool: Executor) -> Array:
        """Take frames of any type, channels where `layout` says; returns (frames, 3, height, width)."""
        height, width = clip[0].shape[:2] if layout == "channels_last" else clip[0].shape[1:]
        out = self._allocate(len(clip), height, width)

        def of_frame(rank: int) -> Array:
            planes = to_planes(
                clip[rank], do_convert_rgb=self._settings["do_convert_rgb"], input_data_format=layout, rgba=_on_white
            )
            target = None if out is None else out[rank]
            if planes.dtype == np.uint8 and planes.shape[0] == 3:
                return self._of_rgb(np.ascontiguousarray(planes.transpose(1, 2, 0)), target, self._target)
            return self._of_planes(planes)

        return self._joined(list(pool.map(of_frame, range(len(clip)))), out)

    def _joined(self, frames: list[Array], out: Array | None) -> Array:
        """Return the frames as one array; `out` itself where each was written into its place."""
        written = out is not None and len(frames) == len(out) and all(map(_follows, frames, out))
        joined = out if out is not None and written else np.stack(frames)
        self._taken += joined.nbytes
        return joined

    def _of_rgb(self, rgb: Array, out: Array | None, target: dict[str, Any]) -> Array:
        """uint8 (height, width, 3), natively; resized to `target` and to the tile where there is room for one."""
        table, formula = conversion(_ARITHMETIC, 3, self._settings)
        if out is None:
            return np.stack([table[channel][rgb[..., channel]] for channel in range(3)])
        _rust.preprocess(
            [rgb],
            [0],
            out[None],
            split=False,
            resample=int(self._settings["resample"]),
            arithmetic=_ARITHMETIC.name,
            table=table,
            formula=formula,
            **target,
        )
        return out

    def _of_planes(self, planes: Array) -> Array:
        """Any other type, in single steps."""
        if self._settings["do_resize"]:
            (height, width), *_ = _rust.layout(*planes.shape[1:], tile=self._tile, split=False, **self._target)
            for side in ((height, width), (self._tile, self._tile)):
                planes = _ARITHMETIC.resize(planes, *side, self._settings["resample"])
        return _ARITHMETIC.rescale_and_normalize(planes, *rescaling(self._settings))

    def _allocate(self, count: int, height: int, width: int) -> Array | None:
        """Return room for frames of known size, None where it is not known; refuses more than the policy allows."""
        if self._settings["do_resize"]:
            height = width = self._tile
        check_output(count, height, width, self._policy, before=self._taken)
        return _rust.empty((count, 3, height, width), "float32") if self._settings["do_resize"] else None


def check_output(count: int, height: int, width: int, policy: MediaPolicy, before: int = 0) -> None:
    """Refuse float32 frames that, with `before` bytes of other clips, take more than one call may return."""
    needed, allowed = before + count * 3 * height * width * 4, policy.max_output_bytes
    if needed > allowed:
        raise MediaLimitError(
            f"{count} frames of {height}×{width} bring this call to {needed} bytes, allowed are {allowed}; sample "
            "fewer frames by num_frames or fps, pass fewer clips at a time, or raise MediaPolicy.max_output_bytes"
        )


def _target(size: Any) -> dict[str, Any]:
    try:
        target = target_size(size)
    except ValueError:
        raise ValueError(f"Size must contain 'height' and 'width' keys, or 'longest_edge' key. Got {size!r}.") from None
    if target["longest_edge"] is not None:
        target["longest_edge"] = min(MAX_LONGEST_EDGE, target["longest_edge"])
    return target


def _follows(frame: Array, place: Array) -> bool:
    """Whether a frame was written into its place."""
    return frame.ctypes.data == place.ctypes.data


def _on_white(planes: Array) -> Array:
    """Blend (4, height, width) onto white, in float32 and not rounded; opaque frames only lose their alpha."""
    if not (planes[3] < 255).any():
        return planes[:3]
    alpha = planes[3:].astype(np.float32) / np.float32(255)
    blended: Array = (np.float32(1) - alpha) * np.float32(255) + alpha * planes[:3]
    return blended
