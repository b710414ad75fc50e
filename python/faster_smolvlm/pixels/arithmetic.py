"""The arithmetic of both references on (channels, height, width) arrays: resize, RGBA, rescale, normalise.

`Torch` is what torchvision computes, `Pillow` what Pillow and NumPy compute in the Pillow backend. uint8 is resized
natively in fixed point, bit for bit; the rest of this module is for other types, for tables and for single steps.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import _rust

Array = np.ndarray[Any, Any]
Numbers = float | tuple[float, ...] | list[float]
# Scale, mean and std of each channel.
Formula = list[tuple[float, float, float]]

BILINEAR = 2


class Arithmetic(Protocol):
    """What an image processor needs to know about numbers."""

    name: str

    def __hash__(self) -> int: ...

    def rgba(self, planes: Array) -> Array:
        """Compose (4, height, width) onto white."""

    def resize(self, planes: Array, height: int, width: int, resample: int | None) -> Array:
        """Resize (channels, height, width)."""

    def rescale(self, planes: Array, factor: float) -> Array:
        """Multiply."""

    def normalize(self, planes: Array, mean: Numbers, std: Numbers) -> Array:
        """Subtract the mean, divide by the standard deviation."""

    def rescale_and_normalize(
        self, planes: Array, do_rescale: bool, factor: float, do_normalize: bool, mean: Numbers, std: Numbers
    ) -> Array:
        """Both steps, as the reference combines them."""

    def formula(self, factor: float | None, mean: Numbers | None, std: Numbers | None) -> Formula:
        """Scale, mean and std of the same steps, None for a step that is left out; the native code checks it first."""


def _interleaved(planes: Array) -> Array:
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _each_channel(mean: Numbers | None, std: Numbers | None) -> list[tuple[float, float]]:
    means, stds = np.broadcast_arrays(
        np.asarray(0 if mean is None else mean, np.float32), np.asarray(1 if std is None else std, np.float32)
    )
    return [(float(m), float(s)) for m, s in zip(np.atleast_1d(means), np.atleast_1d(stds), strict=True)]


def _column(values: Numbers, dtype: npt.DTypeLike) -> Array:
    column = np.asarray(values, dtype=dtype)
    return column.reshape(-1, 1, 1) if column.ndim == 1 else column


class BFloat16(np.ndarray[Any, Any]):
    """float32 values, all of which bfloat16 can hold: NumPy has no such type."""


def as_bfloat16(values: Array) -> Array:
    """float32 values rounded to what bfloat16 can hold, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.ndarray).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    out: Array = rounded.view(np.float32).view(BFloat16)
    return out


def _cast(values: Array, like: Array) -> Array:
    if isinstance(like, BFloat16):
        return as_bfloat16(values)
    return values.astype(like.dtype, copy=False)


class Torch:
    """torchvision's arithmetic."""

    name = "torch"

    def rgba(self, planes: Array) -> Array:
        """Blend in float32; uint8 is truncated, as `to_dtype(scale=True)` does."""
        values = planes.astype(np.float32)
        if planes.dtype.kind == "f":
            _check_unit(planes)
        elif planes.dtype == np.uint8:
            values *= np.float32(1.0 / 255)
        else:
            raise ValueError(f"RGBA pictures of {planes.dtype} values are not supported; pass uint8, or floats in 0..1")
        blended = values[:3] * values[3:] + (np.float32(1) - values[3:])
        return _cast(blended if planes.dtype.kind == "f" else blended * np.float32(255 + 1.0 - 1e-3), planes)

    def resize(self, planes: Array, height: int, width: int, resample: int | None) -> Array:
        """uint8 in fixed point, floats as floats, integers through float32 and rounded; the latter two not clamped."""
        resample = BILINEAR if resample is None else int(resample)
        if planes.shape[1:] == (height, width):
            return planes
        if planes.dtype == np.uint8:
            out: Array = _rust.resize(_interleaved(planes), height, width, resample=resample, arithmetic="torch")
        elif planes.dtype == np.float64:
            out = _rust.resize_float64(_interleaved(planes), height, width, resample=resample)
        else:
            values = _interleaved(planes).astype(np.float32, copy=False)
            out = _rust.resize_float32(values, height, width, resample=resample)
            if planes.dtype.kind in "iu":
                np.rint(out, out=out)
            out = _cast(out, planes)
        moved: Array = out.transpose(2, 0, 1)
        return moved

    def rescale(self, planes: Array, factor: float) -> Array:
        """Integers become float32, floats keep their type."""
        if planes.dtype == np.float64:
            wide: Array = planes * factor
            return wide
        out: Array = planes.astype(np.float32) * np.float32(factor)
        return _cast(out, planes) if planes.dtype.kind == "f" else out

    def normalize(self, planes: Array, mean: Numbers, std: Numbers) -> Array:
        """In float32; RuntimeError if the numbers of channels do not agree."""
        if isinstance(std, (list, tuple, float, int)) and not np.all(std):
            raise ValueError("std evaluated to zero, leading to division by zero.")
        return self._divide(planes, _column(mean, np.float32), _column(std, np.float32))

    def rescale_and_normalize(
        self, planes: Array, do_rescale: bool, factor: float, do_normalize: bool, mean: Numbers, std: Numbers
    ) -> Array:
        """One subtraction and one division: the rescaling is folded into mean and std."""
        if not do_normalize:
            return self.rescale(planes, factor) if do_rescale else planes
        if not do_rescale:
            return self.normalize(planes, mean, std)
        inverse = np.float32(1.0 / factor)
        return self._divide(planes, _column(mean, np.float32) * inverse, _column(std, np.float32) * inverse)

    def formula(self, factor: float | None, mean: Numbers | None, std: Numbers | None) -> Formula:
        """The rescaling is folded into mean and std, if there are any."""
        if factor is None or mean is None:
            return [(1.0 if factor is None else float(np.float32(factor)), m, s) for m, s in _each_channel(mean, std)]
        inverse = np.float32(1.0 / factor)
        folded = _each_channel(np.asarray(mean, np.float32) * inverse, np.asarray(std, np.float32) * inverse)
        return [(1.0, m, s) for m, s in folded]

    def _divide(self, planes: Array, mean: Array, std: Array) -> Array:
        out = planes.astype(np.float32)
        for name, column in (("image_mean", mean), ("image_std", std)):
            if column.ndim == 3 and column.shape[0] not in (1, out.shape[0]):
                raise RuntimeError(f"{name} has {column.shape[0]} values, the picture {out.shape[0]} channels")
        out -= mean
        with np.errstate(divide="ignore", invalid="ignore"):
            out /= std
        return out


class Pillow:
    """The arithmetic of Pillow, and of NumPy around it."""

    name = "pillow"

    def rgba(self, planes: Array) -> Array:
        """Blend in float64 and round half to even."""
        integers = planes.dtype.kind in "iu"
        white = 255 if integers else 1.0
        if not integers:
            _check_unit(planes)
        alpha = planes[3:] / white
        blended = alpha * planes[:3] + (1 - alpha) * white
        return (np.round(blended) if integers else blended).astype(planes.dtype)

    def resize(self, planes: Array, height: int, width: int, resample: int | None) -> Array:
        """Through uint8: floats in 0..1 are multiplied by 255 and truncated, and come back divided by 255."""
        resample = BILINEAR if resample is None else int(resample)
        fraction = self._is_fraction(planes)
        if fraction:
            planes = (planes.astype(np.float64) * 255).astype(np.float32)
        pixels = _interleaved(planes.astype(np.uint8, copy=False))
        out: Array = _rust.resize(pixels, height, width, resample=resample, arithmetic="pillow").transpose(2, 0, 1)
        return self.rescale(out, 1 / 255) if fraction else out

    def rescale(self, planes: Array, factor: float) -> Array:
        """Multiply in float64, return float32."""
        return (planes.astype(np.float64) * factor).astype(np.float32)

    def normalize(self, planes: Array, mean: Numbers, std: Numbers) -> Array:
        """In the type of the picture, float32 if that is no float."""
        channels = planes.shape[0]
        for name, values in (("mean", mean), ("std", std)):
            if isinstance(values, (list, tuple)) and len(values) != channels:
                raise ValueError(f"{name} must have {channels} elements if it is an iterable, got {len(values)}")
        planes = planes if planes.dtype.kind == "f" else planes.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Array = (planes - _column(mean, planes.dtype)) / _column(std, planes.dtype)
        return out

    def rescale_and_normalize(
        self, planes: Array, do_rescale: bool, factor: float, do_normalize: bool, mean: Numbers, std: Numbers
    ) -> Array:
        """One after the other."""
        if do_rescale:
            planes = self.rescale(planes, factor)
        return self.normalize(planes, mean, std) if do_normalize else planes

    def formula(self, factor: float | None, mean: Numbers | None, std: Numbers | None) -> Formula:
        """The factor stays a float64."""
        return [(1.0 if factor is None else factor, m, s) for m, s in _each_channel(mean, std)]

    def _is_fraction(self, planes: Array) -> bool:
        if planes.dtype == np.uint8:
            return False
        low, high = planes.min(), planes.max()
        if np.allclose(planes, planes.astype(int)):
            if low >= 0 and high <= 255:
                return False
            expected = "[0, 255]"
        elif low >= 0 and high <= 1:
            return True
        else:
            expected = "[0, 1]"
        raise ValueError(
            f"The image to be converted to a PIL image contains values outside the range {expected}, "
            f"got [{low}, {high}] which cannot be converted to uint8."
        )


def _check_unit(planes: Array) -> None:
    if planes.min() < 0.0 or planes.max() > 1.0:
        raise ValueError(
            "The image to be converted to RGB contains values outside the range [0, 1], "
            f"got [{planes.min()}, {planes.max()}]."
        )
