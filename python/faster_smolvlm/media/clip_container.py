"""Opening the container of a clip: which ones are allowed, what the others are, and which stream is the clip."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from ..quoting import shown
from .clip_memory import decoder_pixels
from .errors import MediaDecodeError, MediaRefusedError
from .policy import NEVER_CONTAINERS
from .video_file import VideoFile

if TYPE_CHECKING:
    import av
    import av.container

_PROBE_BYTES = 1 << 16  # enough for FFmpeg to name a container
_BEYOND = 1 << 40  # no file is that long
_MOST_BOXES = 10_000  # an MP4 has some ten outermost boxes, two more for each of its fragments
# Texts that FFmpeg names only by the end of a path, or not at all.
_PLAYLISTS = {b"#EXTM3U": "hls", b"<MPD": "dash", b"<?xml": "dash", b"[playlist]": "pls", b"v=0": "sdp"}
_MARGIN = 1 << 16  # pixels that a decoder may round a size up by; frames themselves are checked to the pixel


class _Bytes(io.BytesIO):
    """Bytes for FFmpeg, which asks a file object for them as long as it likes: not beyond the clip's deadline."""

    def __init__(self, file: VideoFile) -> None:
        super().__init__(file.data or b"")
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._file.deadline:
            raise TimeoutError
        return super().read(size)


class _RecognizedError(Exception):
    """FFmpeg has recognized a container, and would read its header now."""


class _Start(io.BytesIO):
    """The first bytes of a file; seeking beyond them, which comes after the container is recognized, raises."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if offset >= _BEYOND:
            raise _RecognizedError
        return super().seek(offset, whence)


def open_container(file: VideoFile) -> av.container.InputContainer:
    """Open a clip's container; raises a `MediaError` for what is none, is not allowed, or takes too long."""
    import av

    # "file:", so that no name is taken for a protocol
    opened = _Bytes(file) if file.path is None else f"file:{os.path.abspath(file.path)}"
    seconds = max(0.001, min(file.deadline - time.monotonic(), file.policy.max_decode_seconds))
    try:
        return av.open(opened, options=container_options(file), timeout=seconds, metadata_errors="replace")
    except Exception as error:  # PyAV raises anything; its words may hold addresses and pieces of the input
        found = error
    if time.monotonic() > file.deadline or isinstance(found, (TimeoutError, av.error.ExitError)):
        raise file.limit("takes too many seconds to open", "max_decode_seconds")
    raise _explained(file)


def container_options(file: VideoFile) -> dict[str, str]:
    """Return the options that hold FFmpeg to the policy while it opens a file."""
    allowed = {"format_whitelist": ",".join(file.policy.containers), "protocol_whitelist": "file"}
    return {**allowed, **decoder_options(file)}


def decoder_options(file: VideoFile) -> dict[str, str]:
    """Return the options of a decoder that hold it to the policy before it takes memory."""
    pixels = decoder_pixels(file)
    return {"max_pixels": str(min(pixels + pixels // 16 + _MARGIN, (1 << 31) - 1))}


def clip_stream(container: av.container.InputContainer, file: VideoFile) -> av.VideoStream:
    """Return the stream that is the clip: the one that FFmpeg calls best, among those that are no attached picture.

    Of streams that no decoder is known for, or whose pictures are a cover or thumbnails, none is taken. Raises a
    `MediaDecodeError` that says what there is if nothing is left.
    """
    moving = [stream for stream in container.streams.video if not _is_attached(stream)]
    readable = [stream for stream in moving if stream.codec_context is not None]
    best = container.streams.best("video")
    for stream in readable:
        if best is not None and stream.index == best.index:
            return stream
    if readable:
        return max(readable, key=_rank)
    if moving:
        raise file.broken("has a video stream of a codec that this FFmpeg cannot decode")
    if container.streams.video:
        raise file.broken("has no video stream, only attached pictures (cover art); pass it as a picture or as sound")
    kinds = sorted({stream.type for stream in container.streams})
    raise file.broken(f"has no video stream (only {', '.join(kinds) or 'nothing'})")


def _is_attached(stream: av.VideoStream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _rank(stream: av.VideoStream) -> tuple[bool, int, int]:
    """Return what FFmpeg compares: the disposition, the frames, the bits per second."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.default), stream.frames, stream.codec_context.bit_rate or 0


def _explained(file: VideoFile) -> MediaDecodeError | MediaRefusedError:
    """Return the error for a file that FFmpeg does not open."""
    with file.open() as data:
        start = data.read(_PROBE_BYTES)
        if not start:
            return file.broken("is empty: it holds 0 bytes")
        name = _container_name(start)
        allowed = any(part in file.policy.containers for part in name.split(","))
        if name in NEVER_CONTAINERS:
            return file.refused(f"is a playlist or a description ({name}) that names other files; it is never opened")
        if name.endswith("_pipe") or name == "image2":
            return file.broken("is a still picture, to be passed as an image")
        if name and not allowed:
            return file.refused(
                f"is in a container that is not allowed: {shown(name)}; to allow it, pass MediaPolicy(containers=(…)) "
                f"with {shown(name)} added to MediaPolicy().containers"
            )
        if name and start[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            return file.broken(_of_boxes(data))
        if name:
            return file.broken(f"is broken or cut off: its header ({name}) cannot be read")
    return file.broken("is not a video that can be read: unknown, damaged or cut off")


def _container_name(start: bytes) -> str:
    """Return what FFmpeg calls the container of a file that begins so, or "" if it knows none.

    PyAV does not tell what FFmpeg recognized. But a container that is not in a list is refused by another error, and
    before anything of it is read; so halving the list finds it, and no reader of a container sees the file.
    """
    import av

    for sign, playlist in _PLAYLISTS.items():
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(sign) and (sign != b"<?xml" or b"<MPD" in start):
            return playlist
    names = sorted(av.formats_available)
    if not _is_among(start, names):
        return ""
    while len(names) > 1:
        half = names[: len(names) // 2]
        names = half if _is_among(start, half) else names[len(half) :]
    # Containers with several names, like 3gp, mov and mp4, are found under one of them.
    whole: list[str] = [name for name in av.formats_available if names[0] in name.split(",")]
    return max(whole, key=len)


def _is_among(start: bytes, names: Sequence[str]) -> bool:
    """Whether FFmpeg recognizes the beginning of a file as one of these containers."""
    import av

    options = {"format_whitelist": ",".join(names), "protocol_whitelist": "", "skip_initial_bytes": str(_BEYOND)}
    try:
        av.open(_Start(start), options=options).close()
    except _RecognizedError:
        return True
    except Exception:  # not among them, or nothing at all
        return False
    return False


def _of_boxes(data: BinaryIO) -> str:
    """Say what an MP4 lacks, by its outermost boxes."""
    end = data.seek(0, io.SEEK_END)
    position = 0
    seen: set[bytes] = set()
    for _ in range(_MOST_BOXES):
        if position + 8 > end:
            break
        data.seek(position)
        head = data.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        size = end - position if size == 0 else size
        seen.add(kind)
        if size < 8:
            break
        if position + size > end:
            where = "its header (moov)" if kind == b"moov" else "its data"
            lost = kind != b"moov" and b"moov" not in seen
            rest = ", and its header (moov), which would follow, is missing" if lost else ""
            return f"is an MP4 or MOV file that is cut off in {where}{rest}"
        position += size
    if b"moov" not in seen and b"moof" not in seen:
        return "is an MP4 or MOV file whose header (moov) is missing: cut off, or never finished by its recorder"
    return "is an MP4 or MOV file whose header (moov) is broken"
