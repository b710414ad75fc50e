"""Sorting the keyword arguments of a processor call by what they are for."""

from __future__ import annotations

import logging
from typing import Any

_LOG = logging.getLogger(__name__)

TEXT = frozenset(
    {
        "add_special_tokens",
        "max_length",
        "pad_to_multiple_of",
        "padding",
        "padding_side",
        "return_attention_mask",
        "return_length",
        "return_offsets_mapping",
        "return_special_tokens_mask",
        "return_tensors",
        "return_token_type_ids",
        "truncation",
        "verbose",
    }
)
_PIXELS = frozenset(
    {
        "crop_size",
        "data_format",
        "default_to_square",
        "device",
        "do_center_crop",
        "do_convert_rgb",
        "do_normalize",
        "do_pad",
        "do_rescale",
        "do_resize",
        "image_mean",
        "image_std",
        "input_data_format",
        "max_image_size",
        "resample",
        "rescale_factor",
        "return_tensors",
        "size",
    }
)
IMAGES = _PIXELS | {
    "disable_grouping",
    "do_image_splitting",
    "image_seq_length",
    "pad_size",
    "max_tiles",
    "output_dtype",
    "return_row_col_info",
    "upscale",
}
VIDEOS = _PIXELS | {
    "do_sample_frames",
    "fast",
    "fps",
    "frame_sampling",
    "media_policy",
    "num_frames",
    "return_metadata",
    "video_metadata",
}
OWN = frozenset({"return_mm_token_type_ids", "return_text_replacement_offsets", "sanitize_control_tokens"})

_GROUPS = {"text_kwargs": TEXT, "images_kwargs": IMAGES, "videos_kwargs": VIDEOS, "audio_kwargs": frozenset[str]()}

Sorted = dict[str, dict[str, Any]]


def sort_kwargs(kwargs: dict[str, Any], tokenizer_defaults: dict[str, Any]) -> Sorted:
    """Return `text_kwargs`, `images_kwargs`, `videos_kwargs` and `own` (what the processor itself reads).

    Later ones win: `tokenizer_defaults`, `common_kwargs`, then what the caller gave flat or grouped. A name that fits
    several modalities goes to each. Raises ValueError for a name given flat and grouped; a name that nobody knows is
    logged and dropped, as in Transformers.
    """
    groups: Sorted = {group: {} for group in _GROUPS}
    groups["own"] = {}
    groups["text_kwargs"].update(tokenizer_defaults)
    common = kwargs.get("common_kwargs") or {}
    for group in _GROUPS:
        groups[group].update(common)
    for key, value in kwargs.items():
        if key in _GROUPS:
            _add_group(groups, key, value, kwargs)
        elif key in OWN:
            groups["own"][key] = value
        elif not _add_flat(groups, key, value) and key != "common_kwargs":
            _LOG.warning("Keyword argument `%s` is not a valid argument for this processor and will be ignored.", key)
    return groups


def _add_flat(groups: Sorted, key: str, value: Any) -> bool:
    takers = [group for group, names in _GROUPS.items() if key in names]
    for group in takers:
        groups[group][key] = value
    return bool(takers)


def _add_group(groups: Sorted, group: str, values: dict[str, Any], kwargs: dict[str, Any]) -> None:
    for key, value in values.items():
        if group == "text_kwargs" and key in OWN:
            groups["own"].setdefault(key, value)
        elif key in kwargs and key in _GROUPS[group]:
            raise ValueError(
                f"Keyword argument {key} was passed two times:\nin a dictionary for {group} and as a **kwarg."
            )
        else:
            groups[group][key] = value
