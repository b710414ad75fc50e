"""Animated WebP, which FFmpeg does not decode: read with Pillow, behind the same limits as every other clip."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from .clip_memory import PictureForm, threads_within
from .limits import check_size
from .packets import PacketTable
from .video_file import ShortStreamError, StoppedError, VideoFile

if TYPE_CHECKING:
    import av
    import PIL.Image

_CODEC = "webp"
_ANIMATED = 2  # bit of the flags in VP8X


class WebpStream:
    """The frames of an animated WebP, with the methods of `VideoStream`; close it, or use it in a `with` statement.

    The header and the frames' lengths are read by ourselves: Pillow takes memory for the whole canvas as soon as it
    opens a file, and tells how long a frame is shown only after it has decoded it.
    """

    backend = "pillow"
    clock_of_each = False  # as in `VideoStream`
    time_base = Fraction(1, 1000)
    sample_aspect_ratio = Fraction(1)
    transfer = matrix = 2  # not told

    def __init__(self, file: VideoFile, held: int = 0, stop: threading.Event | None = None) -> None:
        self._file, self._stop = file, stop
        self._deadline = file.deadline
        with file.open() as data:
            self.height, self.width, self._milliseconds = _read_header(data, file)
        self.form = PictureForm(_CODEC, self.height, self.width, bytes_per_pixel=4)  # Pillow's canvas is RGBA
        threads_within(file, self.form, 1, held)
        self.frames = len(self._milliseconds)
        total = sum(self._milliseconds)
        self.rate = Fraction(1000 * self.frames, total) if total else None

    def __enter__(self) -> WebpStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def packet_table(self) -> PacketTable:
        """Return one row a frame; any but the first may be a change of the one before."""
        pts = np.cumsum([0, *self._milliseconds[:-1]])
        order = np.arange(self.frames)
        return PacketTable(pts, order, order[:1], order[:1], exact=False)

    def decode_all(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (index, PyAV frame) for ascending `indices`; raises `ShortStreamError` if fewer frames come out."""
        import av

        file, remaining = self._file, set(indices)
        with ExitStack() as opened:
            try:
                picture = opened.enter_context(_open(opened.enter_context(file.open())))
            except Exception:  # Pillow raises anything; what it says may hold addresses
                raise file.broken("is a broken or truncated WEBP file") from None
            for index in range(self.frames):
                if time.monotonic() > self._deadline:
                    raise file.limit("takes too many seconds to decode", "max_decode_seconds")
                if self._stop is not None and self._stop.is_set():
                    raise StoppedError
                try:
                    picture.seek(index)
                    picture.load()
                except Exception:  # as above
                    raise ShortStreamError(index) from None
                if index in remaining:
                    remaining.remove(index)
                    frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")), format="rgb24")
                    start = time.monotonic()
                    yield index, frame
                    now = time.monotonic()
                    allowed = file.policy.max_decode_seconds
                    self._deadline = now + allowed if self.clock_of_each else self._deadline + now - start
                if not remaining:
                    return


def is_webp(start: bytes) -> bool:
    """Whether a file that begins with these (12 or more) bytes is a WebP."""
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def _open(data: BinaryIO) -> PIL.Image.Image:
    from PIL import Image

    return Image.open(data, formats=["WEBP"])


def _read_header(data: BinaryIO, file: VideoFile) -> tuple[int, int, list[int]]:
    """Return height, width and the milliseconds of each frame, reading no pixels."""
    data.seek(12)
    head = data.read(18)
    if len(head) < 18 or head[:4] != b"VP8X" or not head[8] & _ANIMATED:
        raise file.broken("is no video: a still picture, to be passed as an image, or a broken one")
    width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (12, 15))
    check_size(height, width, file.name, file.policy)
    milliseconds: list[int] = []
    while len(chunk := data.read(8)) == 8:
        size = int.from_bytes(chunk[4:], "little")
        size += size % 2
        if chunk[:4] == b"ANMF" and len(frame := data.read(min(size, 16))) == 16:
            milliseconds.append(int.from_bytes(frame[12:15], "little"))
            size -= 16
            if len(milliseconds) > file.policy.max_decoded_frames:
                raise file.limit(f"has {len(milliseconds)} frames or more", "max_decoded_frames")
        data.seek(size, io.SEEK_CUR)
    return height, width, milliseconds
