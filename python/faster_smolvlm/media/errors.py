"""What can be wrong with a picture or a video from outside.

Messages name the source and state limits. They never hold messages of a decoder, object addresses, queries of URLs
or the payload of a data URI: they may be shown to whoever sent the file. Each class is also of the
types that Transformers raises in its place.
"""

from __future__ import annotations


class MediaError(ValueError):
    """A picture or a video that cannot be used; the other classes say why."""


class MediaTypeError(MediaError, TypeError):
    """An object of a kind that is no picture and no source of one."""


class MediaNotFoundError(MediaError, FileNotFoundError):
    """A path that leads nowhere, or to no file."""

    def __str__(self) -> str:
        return str(self.args[0])


class MediaDecodeError(MediaError, OSError, RuntimeError):
    """Bytes that are not what they should be: no picture, truncated, or broken."""

    def __str__(self) -> str:
        return str(self.args[0])


class MediaLimitError(MediaError):
    """More bytes, pixels, frames or seconds than the policy allows."""


class MediaRefusedError(MediaError, PermissionError):
    """A source that the policy does not allow, or a file that the system does not let this user read."""

    def __str__(self) -> str:
        return str(self.args[0])


class MediaFetchError(MediaError, OSError):
    """A URL that could not be fetched."""

    def __str__(self) -> str:
        return str(self.args[0])
