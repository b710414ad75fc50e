"""Pictures by path, URL, data URI or base64: read at our gate, with the pixels of the reader that Transformers has.

Which reader that is depends on the class and on the version of Transformers: Pillow, torchvision, or torchcodec.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...media.decode import Reading, decode_image
from ...media.errors import MediaDecodeError
from ...media.limits import check_bytes
from ...media.policy import MediaPolicy
from ...media.source import Source, read_source
from . import headers
from .gif import read_gif
from .notes import say_once

if TYPE_CHECKING:
    import PIL.Image
    import torch

_CLIPPED = Reading(scale_greys=False)


@cache
def reads_tensors() -> bool:
    """Whether this version of Transformers reads pictures of its torchvision classes as tensors, not with Pillow."""
    from transformers import image_utils

    return hasattr(image_utils, "load_image_as_tensor")


@cache
def _torchcodec() -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return torchcodec's decoder of pictures if Transformers uses it in place of torchvision's."""
    from transformers import image_utils

    since = getattr(image_utils, "is_torchcodec_greater_or_equal", None)
    usable = getattr(image_utils, "is_torchcodec_usable", None)
    if since is None or usable is None or not (since("0.16.0") and usable(decode="image")):
        return None
    codec = import_module("torchcodec.decoders")
    return partial(codec.decode_image, mode=codec.ImageReadMode.RGB)


def read_pillow(text: str, policy: MediaPolicy) -> PIL.Image.Image:
    """Return an upright RGB picture as Transformers' `load_image` does; raises a `MediaError`."""
    source = read_source(text, policy)
    image = decode_image(source, policy, reading=_CLIPPED)
    _say_alpha(_start(source))
    return image


def read_tensor(text: str, policy: MediaPolicy, *, only_first: bool) -> torch.Tensor:
    """Return a picture as Transformers' `load_image_as_tensor` does: uint8, or uint16 for PNG of 16 bits, (3, h, w).

    A GIF of several pictures is (pictures, 3, h, w), with `only_first` its first one. What that reader does not know
    (BMP, TIFF, animated WebP and others) is read as the classes of faster_smolvlm read it. Raises a `MediaError`.
    """
    import torch

    found = _in_memory(read_source(text, policy), policy)
    pixels = _pixels(found, policy)
    if pixels.ndim == 4 and only_first:
        say_once(
            "a GIF with several pictures stands for one picture of a prompt: its first is used, where Transformers "
            "raises a ValueError"
        )
        pixels = pixels[0]
    _say_alpha(found.data or b"")
    return torch.from_numpy(pixels)


def _pixels(source: Source, policy: MediaPolicy) -> npt.NDArray[np.uint8 | np.uint16]:
    data, label = source.data or b"", source.label
    png, webp = data.startswith(headers.PNG), data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    gif, deep = data[:6] in (b"GIF87a", b"GIF89a"), png and data[24:25] == b"\x10"
    if (webp or gif or deep) and (decode := _torchcodec()) is not None:
        return _checked(source, policy, decode)
    if png:
        plain = Source(label, data=headers.plain_png(data, label))
        return _deep_png(plain, policy) if deep else _planes(plain, policy)
    if data.startswith(b"\xff\xd8\xff"):
        return _planes(Source(label, data=headers.plain_jpeg(data)), policy)
    if webp:
        return _planes(Source(label, data=headers.plain_webp(data)), policy)
    if gif:
        return read_gif(source, policy)
    pixels = _planes(source, policy)
    say_once(
        "a picture in a format that Transformers' reader does not know (it reads JPEG, PNG, WebP and GIF) is read by "
        "faster_smolvlm"
    )
    return pixels


def _planes(source: Source, policy: MediaPolicy) -> npt.NDArray[np.uint8]:
    planes: npt.NDArray[np.uint8] = np.array(decode_image(source, policy)).transpose(2, 0, 1)
    return planes


def _checked(
    source: Source, policy: MediaPolicy, decode: Callable[[torch.Tensor], torch.Tensor]
) -> npt.NDArray[np.uint8]:
    """Decode with torchcodec what the gate could decode: its animations and its 16 bits are not torchvision's."""
    import torch

    decode_image(source, policy)
    try:
        encoded = torch.frombuffer(bytearray(source.data or b""), dtype=torch.uint8)
        decoded: npt.NDArray[np.uint8] = decode(encoded).numpy()
    except RuntimeError:  # what it says may hold addresses
        raise MediaDecodeError(
            f"{source.label} is a picture that torchcodec, Transformers' reader, cannot read"
        ) from None
    return decoded


def _deep_png(source: Source, policy: MediaPolicy) -> npt.NDArray[np.uint16]:
    """Return all 16 bits of each sample; Pillow unpacks only one of the two bytes at a time."""
    upper, lower = (
        np.asarray(decode_image(source, policy, reading=Reading(half=half))).astype(np.uint16)
        for half in ("upper", "lower")
    )
    say_once(
        "Transformers reads a PNG of 16 bits a sample as values up to 65535 and scales them as if they were up to 255: "
        "so it is done here; pass PIL.Image.open(…).convert('RGB'), or use the classes of faster_smolvlm, for 8 bits"
    )
    grey_with_alpha = (source.data or b"")[25:26] == b"\x04"
    whole = upper[..., :1] << 8 | upper[..., 1:2] if grey_with_alpha else upper << 8 | lower
    return np.ascontiguousarray(np.broadcast_to(whole, upper.shape).transpose(2, 0, 1))


def _in_memory(source: Source, policy: MediaPolicy) -> Source:
    if source.path is None:
        return source
    with source.open() as file:
        data = file.read(policy.max_bytes + 1)
    check_bytes(len(data), source.label, policy)
    return Source(source.label, data=data)


def _start(source: Source) -> bytes:
    with source.open() as file:
        return file.read(32)


def _say_alpha(start: bytes) -> None:
    if headers.has_alpha(start):
        say_once(
            "the transparency of a picture file is dropped, as Transformers drops it; what lies under it becomes "
            "visible. Blend the picture with a background before, if that is not wanted"
        )
