"""How much memory decoding a clip takes, worked out from its header, and the limit on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

    from .video_file import VideoFile

# Pictures that a decoder keeps at most: those that others refer to, and those that wait for their turn to be shown.
_PICTURES = {
    "h264": 34,
    "hevc": 18,
    "vvc": 18,
    "av1": 12,
    "libdav1d": 12,
    "vp9": 11,
    "vp8": 6,
    "theora": 6,
    "mpeg4": 5,
    "mpeg2video": 5,
    "mpeg1video": 5,
    "mjpeg": 3,
    "gif": 3,
    "apng": 5,
    "rawvideo": 3,
    "prores": 3,
    "webp": 5,
}
_OTHERS = 18
_UNKNOWN_FORMAT = 1.5  # bytes of a pixel: 4:2:0 at 8 bits
_RGB = 3
_OPENING = 12  # bytes per pixel allowed for while FFmpeg looks at the first pictures of a file


@dataclass(frozen=True)
class PictureForm:
    """What decides about the size of one decoded picture."""

    codec: str
    height: int
    width: int
    bytes_per_pixel: float

    @classmethod
    def of(cls, codec: str, height: int, width: int, pixel_format: av.VideoFormat | None) -> PictureForm:
        """Take the codec and size of a header or a frame; the pixel format may be unknown."""
        bits = pixel_format.padded_bits_per_pixel if pixel_format is not None else 0
        return cls(codec, height, width, bits / 8 or _UNKNOWN_FORMAT)

    def decoder_bytes(self, threads: int) -> int:
        """Return the most bytes that a decoder of so many threads holds, and with it the frames being converted."""
        # Each thread decodes one picture ahead; two for each wait to be converted, which may take a copy and two
        # pictures in RGB.
        pictures = _PICTURES.get(self.codec, _OTHERS) + (5 * threads if threads > 1 else 4)
        return int(self.height * self.width * (pictures * self.bytes_per_pixel + 2 * threads * _RGB))

    def rgb_bytes(self, frames: int) -> int:
        """Return the bytes of so many frames as uint8 RGB."""
        return frames * self.height * self.width * _RGB


def threads_within(file: VideoFile, form: PictureForm, threads: int, held: int = 0) -> int:
    """Return how many threads may decode, at most `threads`, beside `held` bytes of frames.

    Raises a `MediaLimitError` if one is too many.
    """
    allowed = file.policy.max_clip_bytes
    while threads > 1 and held + form.decoder_bytes(threads) > allowed:
        threads -= 1
    check_held(file, held + form.decoder_bytes(threads), form)
    return threads


def check_held(file: VideoFile, needed: int, form: PictureForm) -> None:
    """Refuse what would hold more bytes than the policy allows; raises a `MediaLimitError`."""
    if needed > file.policy.max_clip_bytes:
        raise file.limit(
            f"would hold up to {needed} bytes of decoded frames of {form.width}×{form.height} pixels "
            "(sample fewer by num_frames or fps)",
            "max_clip_bytes",
        )


def decoder_pixels(file: VideoFile) -> int:
    """Return how many pixels a picture may have while a file is opened, for FFmpeg's own check."""
    return min(file.policy.max_pixels, file.policy.max_clip_bytes // _OPENING)
