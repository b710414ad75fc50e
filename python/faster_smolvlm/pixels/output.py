"""What a call returns: how large it may be, and the containers of its pixels."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from .. import _rust
from ..media import MediaLimitError, MediaPolicy
from .arithmetic import Array
from .call_settings import Settings, plain

if TYPE_CHECKING:
    import torch

    from ..media.kinds import AnyArray

T = TypeVar("T", bound="AnyArray")

Wrap = Callable[[Array], "Array | torch.Tensor"]
"""Turns an array into what is returned: itself, or a tensor of the same memory."""

_BYTES = 4  # of a float32


def check_output(values: int, policy: MediaPolicy, what: str, advice: str, before: int = 0) -> None:
    """Raise `MediaLimitError` if a call returns more than `MediaPolicy.max_output_bytes` allows.

    `values` are the float32 numbers of these frames, `before` the bytes of others of the same call; `what` and `advice`
    are the beginning and the middle of the message.
    """
    needed, allowed = before + _BYTES * values, policy.max_output_bytes
    if needed > allowed:
        raise MediaLimitError(
            f"{what} {needed} bytes, allowed are {allowed}; {advice}, or raise MediaPolicy.max_output_bytes"
        )


def tensor_wrap(settings: Settings) -> Wrap:
    """Return what the settings ask for: torch tensors, if they ask for nothing and torch is installed, too."""
    asked = plain(settings["return_tensors"])
    if asked == "np" or (asked is None and not _has_torch()):
        return keep_array
    device = settings["device"]
    return to_tensor if device is None else lambda array: to_tensor(array).to(device)


def keep_array(array: Array) -> Array:
    """Return the array itself."""
    return array


def to_tensor(array: Array) -> torch.Tensor:
    """Return a tensor of the same memory, if that is contiguous."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def as_array(values: AnyArray) -> Array:
    """Return an array or the values of a tensor."""
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def like(array: Array, given: T) -> T:
    """Return an array in the form in which another one was given: itself, or a tensor on the same device."""
    return cast("T", array if isinstance(given, np.ndarray) else to_tensor(array).to(given.device))


def pack_frames(pixels: Array, frames: list[int], settings: Settings, wrap: Wrap) -> dict[str, object]:
    """Return the entries of the result for pictures, in the containers that the settings ask for.

    `pixels` are (samples, frames, channels, height, width), `frames` how many of them each sample has.
    """
    wrap_mask = wrap
    if plain(settings["output_dtype"]) == "bfloat16":
        wrap = _bfloat16_wrap(plain(settings["return_tensors"]))
    if settings["do_pad"]:
        mask = _rust.empty((*pixels.shape[:2], *pixels.shape[3:]), "int64")
        _rust.fill_mask(mask, frames)
        return {"pixel_values": wrap(pixels), "pixel_attention_mask": wrap_mask(mask)}
    if settings["return_tensors"] is not None and len(set(frames)) == 1:
        return {"pixel_values": wrap(pixels)}
    if plain(settings["return_tensors"]) == "pt":
        raise ValueError(
            f"Unable to convert output 'pixel_values' to one tensor: the samples have {frames} frames; "
            "pass do_pad=True to stack them"
        )
    return {"pixel_values": [[wrap(frame) for frame in row[:count]] for row, count in zip(pixels, frames, strict=True)]}


def pack_clips(clips: list[Array], settings: Settings) -> dict[str, object]:
    """Return the entries of the result for clips (frames, 3, height, width), as `pack_frames`.

    Shorter clips are padded with frames of zeros, smaller ones with zeros at the right and at the bottom.
    """
    if not settings["do_rescale"] and not settings["do_normalize"]:
        clips = [_as_given(clip) for clip in clips]
    wrap = tensor_wrap(settings)
    if not settings["do_pad"]:
        return {"pixel_values": [wrap(clip) for clip in clips]}
    longest = max(len(clip) for clip in clips)
    height, width = max(clip.shape[2] for clip in clips), max(clip.shape[3] for clip in clips)
    if len(clips) == 1:
        pixels = clips[0][None]
    else:
        check_clips(len(clips) * longest, height, width, settings["media_policy"])
        pixels = np.zeros((len(clips), longest, 3, height, width), dtype=clips[0].dtype)
        for row, clip in zip(pixels, clips, strict=True):
            row[: len(clip), :, : clip.shape[2], : clip.shape[3]] = clip
    mask = _rust.empty((len(clips), longest, height, width), "int64")
    if all(clip.shape[2:] == (height, width) for clip in clips):
        _rust.fill_mask(mask, [longest] * len(clips))  # also in frames that only pad, as in Transformers
    else:
        mask[:] = 0
        for row, clip in zip(mask, clips, strict=True):
            row[:, : clip.shape[2], : clip.shape[3]] = 1
    if settings["return_tensors"] is None:
        return {"pixel_values": list(map(wrap, pixels)), "pixel_attention_mask": list(map(wrap, mask))}
    return {"pixel_values": wrap(pixels), "pixel_attention_mask": wrap(mask)}


def check_clips(frames: int, height: int, width: int, policy: MediaPolicy, before: int = 0) -> None:
    """`check_output` for frames of clips."""
    check_output(
        frames * 3 * height * width,
        policy,
        f"{frames} frames of {height}×{width} bring this call to",
        "sample fewer frames by num_frames or fps, pass fewer clips at a time",
        before,
    )


def _as_given(clip: Array) -> Array:
    """uint8 frames that are neither rescaled nor normalised stay uint8."""
    return clip.astype(np.uint8) if np.array_equal(clip, clip.astype(np.uint8)) else clip


def _bfloat16_wrap(tensor_type: object) -> Wrap:
    if tensor_type == "np":
        raise ValueError("NumPy has no bfloat16; pass return_tensors='pt' with output_dtype='bfloat16'")
    import torch

    def convert(array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor.to(torch.bfloat16)

    return convert


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None
