"""The table of settings: what each may be, and whether pictures, clips or both read it.

Every list of settings is made from it: the keyword arguments of a call and of `from_pretrained`, what a processor
passes on to its parts, and what the integration into Transformers translates. A new setting is one row here, and the
code that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag
from functools import cache

from . import setting_checks as checks


class Reader(Flag):
    """Who reads a setting."""

    NOBODY = 0
    PICTURES = 1
    CLIPS = 2
    BOTH = 3


@dataclass(frozen=True)
class Setting:
    """One row.

    `check` tells whether a value is of the right type, `expected` says in words which that is; None is always allowed
    unless the setting is `required`. `choices`, if there are any, are all values that it may have.
    """

    check: checks.Check
    expected: str
    readers: Reader = Reader.BOTH
    choices: tuple[object, ...] = ()
    required: bool = False
    no_effect: Reader = Reader.NOBODY
    """Who takes it as Transformers does, and then does what it would do without it."""
    in_calls: bool = True
    """Whether a call takes it; if not, only the constructor and `from_pretrained` do."""
    ours: bool = False
    """Whether Transformers has no such setting."""
    of_caller: bool = False
    """Whether it is about the caller and no property of a checkpoint: files neither hold nor change it."""


_BOOL = (checks.is_bool, "a bool")
_INT = (checks.is_int, "an int")
_SIZE = (checks.is_size, "an int, two ints or a dict")
_NUMBERS = (checks.is_number_or_numbers, "a number or one for each channel")
_LAYOUT = (checks.is_name, "'channels_first' or 'channels_last'")
_LAYOUTS = ("channels_first", "channels_last")
_PICTURES, _CLIPS, _BOTH = Reader.PICTURES, Reader.CLIPS, Reader.BOTH

SETTINGS: dict[str, Setting] = {
    "do_convert_rgb": Setting(*_BOOL),
    "do_resize": Setting(*_BOOL),
    "size": Setting(checks.is_size, "an int, two ints or a dict with 'longest_edge' or with 'height' and 'width'"),
    "default_to_square": Setting(*_BOOL),
    "resample": Setting(checks.is_int, "a PIL.Image.Resampling or its number", choices=tuple(range(6))),
    "do_rescale": Setting(*_BOOL),
    "rescale_factor": Setting(checks.is_number, "a number"),
    "do_normalize": Setting(*_BOOL),
    "image_mean": Setting(*_NUMBERS),
    "image_std": Setting(*_NUMBERS),
    "do_pad": Setting(*_BOOL),
    # A call about clips reads the attribute of the processor instead, as in Transformers.
    "max_image_size": Setting(
        checks.has_longest_edge, "a dict with a positive 'longest_edge'", required=True, no_effect=_CLIPS
    ),
    "input_data_format": Setting(*_LAYOUT, choices=_LAYOUTS),
    "data_format": Setting(*_LAYOUT, choices=_LAYOUTS, no_effect=_BOTH),
    "device": Setting(checks.is_device, "a device"),
    "return_tensors": Setting(checks.is_name, "'pt' or 'np'", choices=("pt", "np")),
    "do_center_crop": Setting(*_BOOL, no_effect=_BOTH),
    "crop_size": Setting(*_SIZE, no_effect=_BOTH),
    "media_policy": Setting(checks.is_policy, "a MediaPolicy", ours=True, of_caller=True),
    # Pictures only
    "do_image_splitting": Setting(*_BOOL, _PICTURES, required=True),
    "max_tiles": Setting(*_INT, _PICTURES, ours=True),
    "upscale": Setting(*_BOOL, _PICTURES, ours=True),
    "output_dtype": Setting(
        checks.is_dtype,
        "a dtype or its name",
        _PICTURES,
        choices=("float32", "bfloat16", "uint8"),
        ours=True,
    ),
    "return_row_col_info": Setting(*_BOOL, _PICTURES, required=True),
    "pad_size": Setting(*_SIZE, _PICTURES, no_effect=_PICTURES),
    "disable_grouping": Setting(*_BOOL, _PICTURES, no_effect=_PICTURES),
    "image_seq_length": Setting(*_INT, _PICTURES, no_effect=_PICTURES),
    # Clips only
    "do_sample_frames": Setting(*_BOOL, _CLIPS),
    "num_frames": Setting(checks.is_count, "an int, 0 or more", _CLIPS),
    "fps": Setting(checks.is_rate, "a number, 0 or more", _CLIPS),
    "frame_sampling": Setting(checks.is_frame_sampling, "a FrameSampling", _CLIPS, ours=True, of_caller=True),
    "video_metadata": Setting(
        checks.is_metadata,
        f"VideoMetadata, a dict with keys of {sorted(checks.METADATA_NAMES)}, or lists of those",
        _CLIPS,
    ),
    "return_metadata": Setting(*_BOOL, _CLIPS),
    "fast": Setting(*_BOOL, _CLIPS, ours=True),
    "threads": Setting(checks.is_count, "an int, 0 or more", _CLIPS, in_calls=False, ours=True, of_caller=True),
}


@cache
def names(reader: Reader) -> tuple[str, ...]:
    """Return the settings of an image or a video processor, in the order of the table."""
    return tuple(name for name, setting in SETTINGS.items() if reader in setting.readers)


@cache
def call_names(reader: Reader) -> tuple[str, ...]:
    """Return those of them that a call takes."""
    return tuple(name for name in names(reader) if SETTINGS[name].in_calls)


def names_without_effect(reader: Reader) -> frozenset[str]:
    """Return those that are taken as in Transformers and change nothing."""
    return frozenset(name for name in names(reader) if reader in SETTINGS[name].no_effect)


OF_CALLER = frozenset(name for name, setting in SETTINGS.items() if setting.of_caller)
"""Settings that no file of a checkpoint holds."""

IGNORED = frozenset(
    {
        "_from_auto",
        "_from_pipeline",
        "force_download",
        "proxies",
        "resume_download",
        "trust_remote_code",
        "use_fast",
    }
)
"""What callers of Transformers pass to `from_pretrained` and what has no meaning here."""
