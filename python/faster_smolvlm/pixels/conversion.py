"""From bytes to the values that the model reads: a table for each channel, and a formula that may give the same."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .arithmetic import Arithmetic, Array, Formula, Numbers
from .call_settings import Settings

# Different settings in one process are few, and a table is small (3 kB).
_TABLES = 32


class Rescaling(NamedTuple):
    """The settings that `Arithmetic.rescale_and_normalize` takes, in its order."""

    do_rescale: bool
    factor: float
    do_normalize: bool
    mean: Numbers
    std: Numbers


def rescaling(settings: Settings) -> Rescaling:
    """The part of the settings that says how values are rescaled and normalised."""
    return Rescaling(
        settings["do_rescale"],
        settings["rescale_factor"],
        settings["do_normalize"],
        settings["image_mean"],
        settings["image_std"],
    )


def conversion(arithmetic: Arithmetic, channels: int, settings: Settings) -> tuple[Array, Formula]:
    """What each byte of each channel becomes, (channels, 256) float32, and a formula that may give the same."""
    steps = rescaling(settings)
    mean, std = _hashable(steps.mean), _hashable(steps.std)
    return _conversion(arithmetic, channels, steps.do_rescale, steps.factor, steps.do_normalize, mean, std)


@lru_cache(maxsize=_TABLES)
def _conversion(
    arithmetic: Arithmetic,
    channels: int,
    do_rescale: bool,
    factor: float,
    do_normalize: bool,
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
) -> tuple[Array, Formula]:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (channels, 1, 256))
    values = arithmetic.rescale_and_normalize(ramp, do_rescale, factor, do_normalize, mean, std)
    table = np.ascontiguousarray(values.reshape(channels, 256), dtype=np.float32)
    table.setflags(write=False)
    mean_and_std = (mean, std) if do_normalize else (None, None)
    formula = arithmetic.formula(factor if do_rescale else None, *mean_and_std)
    return table, formula * channels if len(formula) == 1 else formula


def _hashable(values: Numbers) -> float | tuple[float, ...]:
    return tuple(values) if isinstance(values, list) else values
