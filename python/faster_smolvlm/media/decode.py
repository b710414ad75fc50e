"""From encoded bytes to an upright RGB picture, within the limits of a policy."""

from __future__ import annotations

import io
import time
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from ..quoting import shown
from . import picture_cost as cost
from .clocked import ClockedFile, OutOfTimeError
from .errors import MediaDecodeError, MediaError, MediaLimitError
from .grey import eight_bit_grey
from .limits import check_size, out_of_time
from .policy import MediaPolicy
from .source import Source

if TYPE_CHECKING:
    import PIL.Image

LONGEST_CALL = 1.0
"""Seconds that a decoder may stay in one call: what may take longer is decoded by a process that can be ended."""
_SMALL_PIECE = 512  # bytes that a JPEG decoder gets at once if each of its scans may take long
_IN_PYTHON = {"bmp_rle", "qoi", "ppm", "ppm_plain"}
_JPEGS = ("JPEG", "MPO")


class Reading(NamedTuple):
    """What is read of a picture file, where readers differ."""

    scale_greys: bool = True
    """Whether greys of more than 8 bits are scaled to 8; without, Pillow clips them to 0..255."""
    half: str = ""
    """Of a PNG with 16 bits a sample: "upper" or "lower" for that byte of each sample (of LA, red is the upper and
    green the lower one); "" for what the picture shows."""


_AS_SHOWN = Reading()
# Pillow's mode and raw mode that unpack one byte of each sample of 16 bits.
_HALVES = {
    "upper": {"I;16B": ("L", "L;16B"), "LA;16B": ("RGBA", "RGBA")},
    "lower": {
        "I;16B": ("L", "L;16"),
        "LA;16B": ("RGBA", "RGBA"),
        "RGB;16B": ("RGB", "RGB;16L"),
        "RGBA;16B": ("RGBA", "RGBA;16L"),
    },
}


class _Job(NamedTuple):
    label: str
    encoded: int
    policy: MediaPolicy
    deadline: float
    apart: bool
    reading: Reading


class _ApartError(Exception):
    """The picture has to be decoded by another process."""


def decode_image(
    source: Source, policy: MediaPolicy, *, apart: bool = True, reading: Reading = _AS_SHOWN
) -> PIL.Image.Image:
    """Decode to an upright RGB picture, within `decode_timeout` from now.

    With `apart`, what may stay in one call for long is decoded in a child process. Raises a `MediaError`.
    """
    deadline = time.monotonic() + policy.decode_timeout
    with source.open() as raw:
        file = ClockedFile(raw, deadline)
        job = _Job(source.label, raw.seek(0, io.SEEK_END), policy, deadline, apart, reading)
        try:
            return _decode(file, job)
        except _ApartError:
            pass
        except MediaError:
            raise
        except MemoryError:
            raise MediaLimitError(f"{job.label} needs more memory than there is") from None
        except BaseException:
            if file.expired:  # a decoder in C may have put an error of its own in its place
                raise out_of_time(job.label, policy) from None
            raise
    from .apart import decode_apart  # processes only for those who need them

    return decode_apart(source, policy, deadline, reading)


def _decode(file: ClockedFile, job: _Job) -> PIL.Image.Image:
    from PIL import ExifTags, Image, ImageOps

    _check_before_opening(file, job)
    with _open(file, job) as image:
        check_size(image.size[1], image.size[0], job.label, job.policy)
        try:
            _reduce(image, job.policy.reduced_edge)
            _check_cost(image, file, job)
            _choose_half(image, job.reading.half)
            image.load()
            # Each step copies the picture, even if it changes nothing.
            upright = eight_bit_grey(image, job.label) if job.reading.scale_greys else image
            if upright.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                _check_memory(cost.peak_bytes(image, job.encoded, turned=True), job)
                upright = ImageOps.exif_transpose(upright)
            file.check()
            return upright if upright.mode == "RGB" else upright.convert("RGB")
        except Image.DecompressionBombError:
            raise _bomb(job.label) from None
        except (_ApartError, MediaError, MemoryError):
            raise
        except Exception:  # decoders raise anything; what they say may hold addresses
            if file.expired:
                raise OutOfTimeError from None
            raise MediaDecodeError(f"{job.label} is a broken or truncated {image.format} file") from None


def _choose_half(image: PIL.Image.Image, half: str) -> None:
    from PIL.ImageFile import ImageFile

    if half and isinstance(image, ImageFile) and image.tile:
        raw = str(image.tile[0].args)
        image._mode, wanted = _HALVES[half].get(raw, (image.mode, raw))
        image.tile = [tile._replace(args=wanted) for tile in image.tile]


def _check_before_opening(file: ClockedFile, job: _Job) -> None:
    """Check the formats for which Pillow takes memory, or decodes, as soon as it opens a file."""
    file.seek(0)
    head = file.read(30)
    if "WEBP" in job.policy.formats and (size := cost.header_size(head)):
        check_size(size[1], size[0], job.label, job.policy)
        _check_memory(cost.webp_peak_bytes(*size, job.encoded), job)
        _check_call(cost.webp_seconds(*size, job.encoded), job)
    if "ICO" in job.policy.formats:
        for width, height in cost.icon_sizes(file):
            check_size(height, width, job.label, job.policy)
            _check_memory(cost.icon_peak_bytes(width, height, job.encoded), job)


def _check_cost(image: PIL.Image.Image, file: ClockedFile, job: _Job) -> None:
    """Refuse an opened picture that needs too much, and prepare its decoder to be left in time."""
    position = file.tell()
    scans = cost.most_scans(image, file, job.policy.max_scans)
    file.seek(position)
    if scans > job.policy.max_scans:
        raise MediaLimitError(
            f"{job.label} has more than {job.policy.max_scans} scans; raise MediaPolicy.max_scans to allow it"
        )
    _check_memory(cost.peak_bytes(image, job.encoded, scans), job)
    _check_call(cost.call_seconds(image, scans), job)
    pixels = image.width * image.height
    if image.format in _JPEGS and cost.scan_seconds(pixels, scans) > LONGEST_CALL / 4:
        image.decodermaxblock = _SMALL_PIECE  # type: ignore[attr-defined]
    if cost.decoder_name(image) in _IN_PYTHON and pixels * cost.PYTHON_SECONDS < job.policy.decode_timeout:
        # They read byte by byte, and a clock at each would cost a fifth. Ctrl-C reaches them anyway.
        image.fp = file.raw  # type: ignore[attr-defined]


def _check_memory(needed: int, job: _Job) -> None:
    if needed > job.policy.max_decode_bytes:
        raise MediaLimitError(
            f"{job.label} may take {needed} bytes of memory to decode, allowed are {job.policy.max_decode_bytes}; "
            "raise MediaPolicy.max_decode_bytes to allow it"
        )


def _check_call(seconds: float, job: _Job) -> None:
    if job.apart and seconds > min(LONGEST_CALL, job.policy.decode_timeout):
        raise _ApartError


def _reduce(image: PIL.Image.Image, edge: int | None) -> None:
    """Let a JPEG decoder leave out what a picture of this longest edge does not show."""
    if edge is None or image.format != "JPEG":
        return
    width, height = image.size
    factor = next((factor for factor in (8, 4, 2) if max(width, height) >= factor * edge), 1)
    if factor > 1:
        image.draft(image.mode, (max(1, width // factor), max(1, height // factor)))


def _open(file: ClockedFile, job: _Job) -> PIL.Image.Image:
    # Never by its path: Pillow would map the file into memory, and the process ends if it is cut meanwhile.
    from PIL import Image

    Image.init()
    formats = [name for name in job.policy.formats if name in Image.OPEN]
    file.seek(0)
    try:
        return Image.open(cast("IO[bytes]", file), formats=formats)
    except Image.DecompressionBombError:
        raise _bomb(job.label) from None
    except MemoryError:
        raise
    except Exception:  # as above
        if file.expired:
            raise OutOfTimeError from None
        raise MediaDecodeError(f"{job.label} {_why_not_opened(file, formats)}") from None


def _why_not_opened(file: ClockedFile, formats: list[str]) -> str:
    """Say what a file is that no reader opens, by its first bytes."""
    file.seek(0)
    known = _kinds(file.read(16))
    allowed = f"not in an allowed format ({', '.join(formats)})"
    cut = [name for name in known if name in formats]
    if cut:
        return f"begins as a {cut[0]} file, but its header is broken or cut off"
    if known:
        return f"is a {known[0]} file, which is {allowed}; add {shown(known[0])} to MediaPolicy.formats to allow it"
    return f"is not a picture, or {allowed}"


def _kinds(start: bytes) -> list[str]:
    """Return the formats of the open policy that may begin with these bytes, the likeliest first."""
    from PIL import Image

    found = []
    for name in sorted(MediaPolicy().formats, key=lambda name: name == "MPO"):
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        try:
            if accept and len(start) > 2 and accept(start) is True:
                found.append(name)
        except Exception:  # too short for this one
            continue
    return found


def _bomb(label: str) -> MediaLimitError:
    return MediaLimitError(
        f"{label} has more pixels than Pillow allows; raise PIL.Image.MAX_IMAGE_PIXELS and MediaPolicy.max_pixels "
        "to allow it"
    )
