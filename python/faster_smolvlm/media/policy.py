"""`MediaPolicy`: what pictures and videos from outside may be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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


@dataclass(frozen=True)
class MediaPolicy:
    """Limits for media from outside. The default is as open as Transformers; `strict()` is for services.

    All limits are checked from headers, before memory is taken. Sizes are in bytes, pixels and seconds; `None` as
    `allowed_domains` means any domain. With `allow_private_addresses=False` every host is resolved once, refused unless
    all its addresses are public, and connected to at the address that was checked, again for each redirect.
    """

    max_bytes: int = 1 << 30
    """Encoded bytes of one file, URL or data URI."""
    max_pixels: int = 64_000_000
    max_side: int = 32_768
    max_output_bytes: int = 1 << 30
    """Bytes of the float32 frames that one call may return."""
    reduced_edge: int | None = None
    """Decode JPEG files at 1/2, 1/4 or 1/8 of their size as long as the longest edge keeps this many pixels: quicker,
    but not equal to Transformers bit for bit, and a picture counts as of its reduced size (for `plan` too)."""
    formats: tuple[str, ...] = _FORMATS
    """Picture formats, by Pillow's names."""
    allow_files: bool = True
    allow_urls: bool = True
    allowed_domains: tuple[str, ...] | None = None
    """Hosts that may be fetched from; a domain includes its subdomains."""
    allow_private_addresses: bool = True
    max_redirects: int = 20
    connect_timeout: float = 10.0
    total_timeout: float = 120.0
    max_frames: int = 512
    """Frames of one video that may be held at once."""
    max_duration: float = 3600.0
    max_decoded_frames: int = 200_000
    max_decode_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side", "max_output_bytes", "connect_timeout", "total_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"MediaPolicy.{name} must be positive, got {getattr(self, name)!r}")
        if self.reduced_edge is not None and self.reduced_edge < 1:
            raise ValueError(f"MediaPolicy.reduced_edge must be positive or None, got {self.reduced_edge!r}")
        if self.max_redirects < 0:
            raise ValueError(f"MediaPolicy.max_redirects must not be negative, got {self.max_redirects!r}")

    @classmethod
    def strict(cls, **changes: Any) -> MediaPolicy:
        """A policy for services: no URLs, no local paths, common formats only, small limits; `changes` override it.

        To allow URLs, pass `allow_urls=True` and `allowed_domains=(…)`; private addresses stay refused.
        """
        base = cls(
            max_bytes=20 << 20,
            formats=("BMP", "GIF", "JPEG", "PNG", "WEBP"),
            allow_files=False,
            allow_urls=False,
            allow_private_addresses=False,
            max_redirects=3,
            connect_timeout=3.0,
            total_timeout=10.0,
            max_frames=64,
        )
        return replace(base, **changes)
