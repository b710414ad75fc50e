"""From decoded frames to RGB: the pixels that Transformers' processors get from torchcodec, and HDR clips for viewers.

The conversion is libswscale's. PyAV 17 and later let it use tags of a frame that torchcodec's way of calling it does
not look at; what follows from such a tag is taken away here, and only where a conversion looks at it:

* Chroma planes of fewer pixels are enlarged by cubic interpolation, their samples taken as centred. 8-bit 4:2:0 and
  4:2:2 of even height, which is nearly every clip, have a conversion of their own, which repeats samples instead.
* The fields of interlaced frames are not told apart.
* Matrices that libswscale does not know (YCgCo, ICtCp …) are read as BT.601, BT.2020 of constant luminance as the usual
  BT.2020.

Pixels so converted equal those of torchcodec 0.17 with FFmpeg 5.1 bit for bit in every YUV and 8-bit RGB format that
was compared. RGB of 10 to 16 bits differs by at most 1 of 255 levels, only at widths that are multiples of 32.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import MediaDecodeError

if TYPE_CHECKING:
    import av
    from av.video.reformatter import VideoReformatter

# Numbers of ITU-T H.273.
_TRANSFERS = {16: "PQ", 18: "HLG"}
_BT709, _UNKNOWN, _BT2020 = 1, 2, 9
_MATRICES = {0, 1, 2, 4, 5, 6, 7, 9}  # that libswscale knows
_BT601, _BT2020_CONSTANT = 6, 10

# Formats whose chroma is repeated, not interpolated, if the height is even.
_REPEATED = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuva420p"})


def warn_of_color(name: str, transfer: int, matrix: int, *, tone_map: bool) -> None:
    """Warn if frames of a clip with these codes of H.273 will look pale, or will have wrong colours."""
    if transfer in _TRANSFERS and not tone_map:
        warnings.warn(
            f"{name} is an HDR clip ({_TRANSFERS[transfer]}): its frames look pale, as they do in Transformers; "
            "MediaPolicy(tone_map=True) converts them to the standard range",
            stacklevel=3,
        )
    if matrix not in _MATRICES | {3, _BT2020_CONSTANT}:
        warnings.warn(
            f"{name} stores its colours by matrix {matrix} of H.273, which is not supported: they are read as BT.601, "
            "as they are in Transformers, and are wrong",
            stacklevel=3,
        )


class FrameConverter:
    """Converts PyAV's frames to RGB, on several threads; with `tone_map` HDR frames (PQ, HLG) to BT.709.

    ImportError if PyAV is too old for that.
    """

    def __init__(self, *, tone_map: bool) -> None:
        if tone_map:
            from av import VideoFrame

            if not hasattr(VideoFrame, "color_trc"):
                raise ImportError("MediaPolicy(tone_map=True) needs PyAV 18 or newer; install it, or leave it False")
        self._tone_map = tone_map
        self._of_thread = threading.local()

    def to_rgb(self, frame: av.VideoFrame, side: int | None = None) -> npt.NDArray[np.uint8]:
        """Convert a frame to uint8 (height, width, 3); with `side` scaled to (side, side) on the way.

        Raises a `MediaDecodeError` for pixels that cannot be converted.
        """
        import av

        if side is None and (frame.interlaced_frame or _is_interpolated(frame)):
            frame = _without_tags(frame)
        matrix = int(frame.colorspace)
        if matrix not in _MATRICES:
            frame.colorspace = _BT2020 if matrix == _BT2020_CONSTANT else _BT601
        mapped: dict[str, int] = {}  # names that an older PyAV does not know
        if self._tone_map and frame.color_trc in _TRANSFERS:
            if frame.color_primaries == _UNKNOWN:
                frame.color_primaries = _BT2020
            mapped = {"dst_color_trc": _BT709, "dst_color_primaries": _BT709}
        how = "BICUBIC" if side is None else "AREA"
        try:
            converted = self._reformatter().reformat(frame, side, side, "rgb24", interpolation=how, **mapped)
            rgb = np.asarray(converted.to_ndarray(), dtype=np.uint8)
        except (av.FFmpegError, OSError, ValueError):
            # The library's own words hold addresses.
            raise MediaDecodeError(f"frames of format {frame.format.name} cannot be converted to RGB") from None
        return rgb

    def _reformatter(self) -> VideoReformatter:
        """Return the converter of this thread: the frames of a decoder share one, which two must not use at once."""
        from av.video.reformatter import VideoReformatter

        if not hasattr(self._of_thread, "reformatter"):
            self._of_thread.reformatter = VideoReformatter()
        reformatter: VideoReformatter = self._of_thread.reformatter
        return reformatter


def _is_interpolated(frame: av.VideoFrame) -> bool:
    """Whether chroma samples are interpolated, so that it matters where they lie."""
    if frame.format.name in _REPEATED and frame.height % 2 == 0:
        return False
    planes = frame.planes
    return len(planes) > 1 and any((p.width, p.height) != (frame.width, frame.height) for p in planes[1:3])


def _without_tags(frame: av.VideoFrame) -> av.VideoFrame:
    """Copy a frame without the place of its chroma samples and without its fields; PyAV cannot unset them."""
    from av import VideoFrame

    copy = VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, copy.planes, strict=True):
        pixels = np.frombuffer(source, np.uint8).reshape(source.height, -1)
        into = np.frombuffer(target, np.uint8).reshape(target.height, -1)
        shared = min(pixels.shape[1], into.shape[1])
        into[:, :shared] = pixels[:, :shared]
    for tag in ("colorspace", "color_range", "color_trc", "color_primaries"):
        if hasattr(frame, tag):
            setattr(copy, tag, getattr(frame, tag))
    return copy
