"""What a picture or a clip may be: the one place that tells sources, arrays, PIL images and frames apart.

Pictures and clips may come from the same sources, at every entrance. Nothing is opened or imported for the question.
A new kind of source is named here, and read in `source.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing import TypeAlias, TypeGuard

    import PIL.Image
    import torch
    from typing_extensions import TypeIs

    AnyArray: TypeAlias = npt.NDArray[np.generic] | torch.Tensor
    Picture: TypeAlias = PIL.Image.Image | AnyArray

_RECORD = frozenset({"bytes", "path"})
FIRST, LAST = "channels_first", "channels_last"


class BinaryFile(Protocol):
    """An object that gives bytes: `io.BytesIO`, ``open(…, "rb")``, a member of an archive, a response, a pipe."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most `size` bytes, none at the end."""


MediaSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Mapping[str, object]
"""What has to be read and decoded. A string is a path, an http(s) URL, a data URI or base64 text; a mapping is a row of
a data set as the library `datasets` stores it: `{"bytes": …, "path": …}`."""

SOURCES = "path, http(s) URL, data URI, base64 string, bytes or binary file"
"""The same in words, for messages."""


def is_source(value: object) -> TypeIs[MediaSource]:
    """Whether `value` has to be read and decoded before there are pixels."""
    return isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)) or is_file(value) or is_record(value)


def is_record(value: object) -> TypeIs[Mapping[str, object]]:
    """Whether `value` is a row of a data set: a mapping with `bytes`, `path` or both, and nothing else."""
    return isinstance(value, Mapping) and 0 < len(value) <= len(_RECORD) and _RECORD.issuperset(value)


def is_file(value: object) -> TypeIs[BinaryFile]:
    """Whether `value` is a file object."""
    return callable(getattr(value, "read", None)) and not isinstance(value, type)


def is_pil_image(value: object) -> TypeIs[PIL.Image.Image]:
    """Whether `value` is a PIL image; Pillow is not imported for the question."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Whether `value` is a torch tensor; torch is not imported for the question."""
    module = sys.modules.get("torch")
    return module is not None and isinstance(value, module.Tensor)


def is_array(value: object) -> TypeIs[AnyArray]:
    """Whether `value` is a NumPy array or a torch tensor."""
    return isinstance(value, np.ndarray) or is_tensor(value)


def is_picture(value: object) -> TypeIs[Picture]:
    """Whether `value` is a decoded picture: a PIL image, a NumPy array or a torch tensor."""
    return is_pil_image(value) or is_array(value)


def is_frame(value: object) -> TypeGuard[Picture]:
    """Whether `value` can be a decoded frame of a clip: a PIL image, an array or tensor of 2 or 3 dimensions."""
    return is_pil_image(value) or dimensions(value) in (2, 3)


def dimensions(value: object) -> int | None:
    """Return how many dimensions an array or a tensor has; None for anything else."""
    return value.ndim if is_array(value) else None


def channel_layout(shape: tuple[int, ...], channels: tuple[int, ...]) -> str | None:
    """Return which of the last three dimensions holds the channels, `FIRST` or `LAST`; None if neither can.

    `channels` are the numbers of channels that there may be; `FIRST` if both dimensions can hold them.
    """
    if shape[-3] in channels:
        return FIRST
    return LAST if shape[-1] in channels else None
