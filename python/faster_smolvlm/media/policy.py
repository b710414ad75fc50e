"""`MediaPolicy`: what pictures and videos from outside may be."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from ..quoting import shown
from .policy_fields import checked

# Not in the list although Pillow knows them: formats that start another program (EPS) or hold no picture of their own.
_FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
)

# FFmpeg's names of containers of video and animation, and WEBP, which is read without it.
_CONTAINERS = (
    "apng",
    "asf",
    "avi",
    "flv",
    "gif",
    "h264",
    "hevc",
    "ivf",
    "m4v",
    "matroska",
    "mov",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "obu",
    "ogg",
    "webm",
    "webp",
)
NEVER_CONTAINERS = frozenset(
    {"applehttp", "bluray", "concat", "concatf", "dash", "dvdvideo", "hls", "image2", "imf", "lavfi", "pls", "rtp"}
    | {"rtsp", "sap", "sdp", "vapoursynth", "vobsub", "webm_dash_manifest"}
)
"""What looks like a container to FFmpeg, but makes it open the files, devices or addresses that it names."""

_LEAST = {"max_redirects": 0}  # the least value that makes sense; 1 for the other whole numbers


@dataclass(frozen=True)
class MediaPolicy:
    """What pictures and clips from outside may be; what is above a limit or not allowed is refused, never cut down.

    There are two policies to start from. `MediaPolicy()` is as open as Transformers: every kind of source, limits that
    ordinary media do not meet. `MediaPolicy.strict()` is for services that read what strangers send: bytes only, common
    formats, small limits. Every field can be changed in both.

    A refusal is a `MediaRefusedError` if the source is not allowed, and a `MediaLimitError`, which names the field, if
    it is too large. Limits are checked from headers, before memory is taken. The defaults below are those of
    `MediaPolicy()`, and of `strict()` if it has another. Raises ValueError for
    values that make no sense, and TypeError for those of another type, by the field's name.
    """

    max_bytes: int = 1 << 30
    """Encoded bytes of one source (file, URL, data URI, bytes or file object): 1 GiB, strict 20 MiB. Larger ones are
    refused; of a URL and of a file object no more than this is read."""
    max_pixels: int = 64_000_000
    """Pixels (height × width) of one picture or frame: 64 million. PIL images, arrays and tensors count too."""
    max_side: int = 32_768
    """Pixels of the longer side of one picture or frame: 32,768. PIL images, arrays and tensors count too."""
    max_scans: int = 256
    """Scans of one JPEG: 256; an encoder writes a dozen. Each makes the decoder go over all coefficients again. More
    are refused before any is decoded, also those of a JPEG inside a TIFF."""
    max_decode_bytes: int = 4 << 30
    """Bytes of memory that reading one picture may take at its peak, the encoded ones included: 4 GiB, strict 384 MiB.
    Predicted from the header; a picture that may take more is refused before the memory is taken."""
    decode_timeout: float = 60.0
    """Seconds for opening and decoding one picture: 60, strict 1.5; `max_decode_seconds` says the same for clips. A
    picture that takes longer is refused within half a second of that moment."""
    max_output_bytes: int = 1 << 30
    """Bytes of the float32 `pixel_values` that one call of a processor may return: 1 GiB. Calls that would return more
    are refused before the frames are made."""
    reduced_edge: int | None = None
    """Pixels that the longer side of a JPEG file keeps at least, while it is decoded at 1/2, 1/4 or 1/8 of its size:
    quicker, but not equal to Transformers bit for bit, and a picture counts as of its reduced size (for `plan` too).
    None, the default, decodes all of it. Nothing is refused."""
    tone_map: bool = False
    """Whether clips of high dynamic range (PQ, HLG) are converted to the standard range (BT.709). False, the default,
    keeps the stored values, as Transformers does: such a clip looks pale, and a warning says so. Nothing is refused."""
    formats: tuple[str, ...] = _FORMATS
    """Picture formats, by Pillow's names: 16 of them, strict BMP, GIF, JPEG, PNG and WEBP. Others are refused; never
    among the 16 are formats that start another program (EPS)."""
    containers: tuple[str, ...] = _CONTAINERS
    """Containers of clips, by FFmpeg's names ("mov" stands for MP4 too): 18 of them. Others are refused; to read raw
    YUV4MPEG, for example, add "yuv4mpegpipe". Playlists and whatever else names other files cannot be added."""
    allow_files: bool = True
    """Whether paths are read: True, strict False. File objects that the caller opened count as bytes, not as paths.
    With False the disk is not asked: a text that may be a path gives one error, whether there is such a file or not."""
    allow_urls: bool = True
    """Whether http(s) URLs are fetched: True, strict False."""
    allowed_domains: tuple[str, ...] | None = None
    """Names or addresses of hosts that may be fetched from, without scheme and port; a domain includes its subdomains.
    None, the default, is any. Other hosts are refused, also those that a redirect leads to."""
    allow_private_addresses: bool = True
    """Whether URLs may lead to addresses that are not public (this machine, its network): True, strict False. With
    False every host is resolved once, refused unless all its addresses are public, and connected to at the address that
    was checked, again for each redirect; proxies set in the environment are not used."""
    allowed_ports: tuple[int, ...] | range | None = None
    """Ports that URLs may name or redirect to; others are refused. None, the default, is any, but 80 and 443 only if
    `allow_private_addresses` is False; `range(1, 65536)` is any in both cases."""
    max_redirects: int = 20
    """Redirects of one URL: 20, strict 3. The next one is refused."""
    connect_timeout: float = 10.0
    """Seconds for one connection to a URL's host, its name and TLS included: 10, strict 3. After them it is a
    `MediaFetchError`."""
    total_timeout: float = 120.0
    """Seconds for one URL in all, from its host's name to the last byte, redirects included: 120, strict 10. After them
    it is a `MediaFetchError`, however slowly bytes still come."""
    max_frames: int = 512
    """Frames of one clip that may be taken by one call: 512, strict 64. A sampler that takes more is refused."""
    max_clip_bytes: int = 4 << 30
    """Bytes of decoded frames that reading one clip may hold at a time, worked out from its header: those that its
    decoder keeps, and those that are returned. 4 GiB, strict 384 MiB. Decoding takes fewer threads, which hold fewer
    frames, if that is enough; else the clip is refused before its frames are decoded. Arrays and lists of pictures
    count too."""
    decode_threads: int | None = None
    """Threads that decode one clip at most, whatever the caller asks for: None, the default, is no limit, strict 1."""
    max_duration: float = 3600.0
    """Seconds that a clip may last, by its frames and its average rate: 3,600. Longer ones are refused, whatever is
    taken of them; a clip whose rate is not known is not."""
    max_decoded_frames: int = 200_000
    """Frames that a clip may hold, counted by its packets: 200,000. Clips of more are refused while they are read."""
    max_decode_seconds: float = 60.0
    """Seconds for reading and decoding one clip, a URL's fetching not counted: 60, strict 1; `decode_timeout` says the
    same for pictures. A clip that takes longer is refused at that moment."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = checked(field.name, str(field.type), getattr(self, field.name), least=_LEAST.get(field.name, 1))
            object.__setattr__(self, field.name, value)
        never = sorted(NEVER_CONTAINERS.intersection(self.containers))
        if never:
            raise ValueError(
                f"MediaPolicy.containers cannot hold {shown(never[0])}: such a file makes FFmpeg open others"
            )

    @classmethod
    def strict(cls, **changes: Any) -> MediaPolicy:
        """Return the policy for services: no URLs, no paths, common formats only, small limits; `changes` override it.

        To allow URLs, pass `allow_urls=True` and `allowed_domains=(…)`; private addresses stay refused. Raises
        TypeError for a field that there is not.
        """
        base = cls(
            max_bytes=20 << 20,
            max_decode_bytes=384 << 20,
            decode_timeout=1.5,
            formats=("BMP", "GIF", "JPEG", "PNG", "WEBP"),
            allow_files=False,
            allow_urls=False,
            allow_private_addresses=False,
            max_redirects=3,
            connect_timeout=3.0,
            total_timeout=10.0,
            max_frames=64,
            max_clip_bytes=384 << 20,
            decode_threads=1,
            max_decode_seconds=1.0,
        )
        return replace(base, **changes)
