"""What encoded media are, told by their first bytes: a picture or a clip. A name is asked only if they do not tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .inline import is_data_uri

if TYPE_CHECKING:
    from .source import Source

HEAD = 4096
"""How many first bytes are looked at."""

_PICTURES = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM|II\*\0|MM\0\*|II\+\0|MM\0\+|P[1-7][\s#]|qoif|\x01\xda"
    rb"|\0\0\x01\0|\0\0\x02\0|\x0a[\0-\x05]\x01|\xff\x4f\xff\x51|\0\0\0\x0cjP  |8BPS|%!PS|\xff\x0a|\0\0\0\x0cJXL ",
    re.DOTALL,
)
_CLIPS = re.compile(
    rb"\x1a\x45\xdf\xa3|RIFF.{4}AVI |RIFF.{4}AVIX|FLV|OggS|\x30\x26\xb2\x75\x8e\x66\xcf\x11|DKIF|YUV4MPEG2|\.RMF"
    rb"|\x06\x0e\x2b\x34|nut/multimedia|\0\0\x01[\xb0\xb3\xb5\xba]|\0{2,3}\x01[\x01-\x7f]|\x12\0\x0a|\x0b\x77",
    re.DOTALL,
)
_BOX = re.compile(rb".{4}(ftyp|moov|mdat|free|skip|wide|pnot|styp|moof|sidx|uuid|udta|meta)", re.DOTALL)
_PICTURE_BRANDS = (b"avif", b"avis", b"mif1", b"msf1", b"heic", b"heix", b"hevc", b"hevx")
_PACKET_SIZES = (188, 192, 204)  # of MPEG transport streams: bare, with time, with correction
_CLIP_NAMES = re.compile(
    r"\.(mp4|m4v|mov|qt|3gp|3g2|mkv|mk3d|webm|avi|divx|flv|f4v|ogv|ogg|ogm|mpe?g|mpe|m1v|m2v|vob|m?2?ts|mts|wmv|asf"
    r"|h26[45]|264|265|hevc|avc|ivf|obu|y4m|mxf|nut|rm|rmvb)$",
    re.IGNORECASE,
)


def kind_of(head: bytes) -> str | None:
    """Return "picture" or "clip" for the first bytes of encoded media; None if they do not tell.

    Animations (GIF, WebP, APNG, AVIF sequences) are pictures, of which the first frame counts.
    """
    if _BOX.match(head):
        return "picture" if head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS else "clip"
    if _is_transport_stream(head) or _CLIPS.match(head):
        return "clip"
    return "picture" if _PICTURES.match(head) else None


def is_clip(source: Source, name: str = "") -> bool:
    """Whether `source` is a clip and not a picture, by its content.

    If that does not tell (TGA has no mark, what is damaged may have lost it), the `name`, a path, URL or data URI,
    does; without a hint it counts as a picture. Raises a `MediaError` if the file cannot be read.
    """
    with source.open() as file:
        found = kind_of(file.read(HEAD))
    return names_clip(name) if found is None else found == "clip"


def names_clip(name: str) -> bool:
    """Whether a path, URL or data URI says that it is a clip."""
    if is_data_uri(name):
        return name[5:11].lower() == "video/"
    bare = re.split(r"[?#]", name, maxsplit=1)[0] if "://" in name else name
    return _CLIP_NAMES.search(bare) is not None


def _is_transport_stream(head: bytes) -> bool:
    for size in _PACKET_SIZES:
        for first in range(size):
            marks = head[first : first + 5 * size : size]
            if len(marks) >= 3 and not marks.strip(b"\x47"):
                return True
    return False
