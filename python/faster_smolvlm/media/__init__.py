"""The one gate for pictures and videos from outside: what they may be, fetching and decoding."""

from .errors import (
    MediaDecodeError,
    MediaError,
    MediaFetchError,
    MediaLimitError,
    MediaNotFoundError,
    MediaRefusedError,
    MediaTypeError,
)
from .image import load_image
from .policy import MediaPolicy
from .sampling import FrameSampling
from .source import Source, read_source

__all__ = [
    "FrameSampling",
    "MediaDecodeError",
    "MediaError",
    "MediaFetchError",
    "MediaLimitError",
    "MediaNotFoundError",
    "MediaPolicy",
    "MediaRefusedError",
    "MediaTypeError",
    "Source",
    "load_image",
    "read_source",
]
