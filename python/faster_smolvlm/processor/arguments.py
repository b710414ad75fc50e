"""Sorting the keyword arguments of a processor call by who reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ..pixels.call_settings import Settings
from ..pixels.protocols import VideoProcessor
from ..pixels.settings import Reader, call_names
from ..text.call_options import TextOptions
from ..unknown_names import check_names

TEXT = frozenset(TextOptions.__annotations__)
OWN = frozenset(
    {"clips_per_prompt", "return_mm_token_type_ids", "return_text_replacement_offsets", "sanitize_control_tokens"}
)
# Transformers' processors take these for models that hear; there is no audio here.
_AUDIO = frozenset(
    {
        "max_length",
        "pad_to_multiple_of",
        "padding",
        "raw_speech",
        "return_attention_mask",
        "return_tensors",
        "sampling_rate",
        "truncation",
    }
)
_READ_BY = {
    "text_kwargs": TEXT,
    "images_kwargs": frozenset(call_names(Reader.PICTURES)),
    "videos_kwargs": frozenset(call_names(Reader.CLIPS)),
}


@dataclass(frozen=True)
class CallArguments:
    """The arguments of a call by who reads them: the tokenizer, the image and the video processor, the processor."""

    text: Settings = field(default_factory=dict)
    images: Settings = field(default_factory=dict)
    videos: Settings = field(default_factory=dict)
    own: Settings = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, Settings]:
        """The arguments of the three parts, by the names of Transformers."""
        return {"text_kwargs": self.text, "images_kwargs": self.images, "videos_kwargs": self.videos}

    def set(self, name: str, value: object) -> None:
        """Give an argument to each one that reads it."""
        if name in OWN:
            self.own[name] = value
        for group, values in self.groups.items():
            if name in _READ_BY[group]:
                values[name] = value


def check_arguments(given: Mapping[str, object], clips: bool, also_named: Iterable[str] = ()) -> None:
    """Raise TypeError for a name that nobody reads, given flat or in a group such as `images_kwargs`.

    `clips` tells whether there is a video processor; `also_named` are further names that the error may suggest.
    """
    groups = _groups(clips)
    check_names(given.keys(), {*groups, *groups["common_kwargs"]}, also_named=also_named)
    for group in groups.keys() & given.keys():
        values = given[group]
        if isinstance(values, Mapping):
            check_names(values.keys(), groups[group], f" in {group}")
        elif values is not None:
            raise TypeError(f"{group} has to be a dict, got {type(values).__name__}")


def sort_arguments(given: Settings, tokenizer_defaults: Mapping[str, object], clips: bool) -> CallArguments:
    """Sort the keyword arguments of a call.

    Later ones win: `tokenizer_defaults`, `common_kwargs`, then what the caller gave flat or grouped. A name that
    several read goes to each. Raises TypeError for a name that nobody reads, ValueError for one that is given flat and
    grouped.
    """
    check_arguments(given, clips)
    arguments = CallArguments(text=dict(tokenizer_defaults))
    for name, value in (given.get("common_kwargs") or {}).items():
        arguments.set(name, value)
    for key, value in given.items():
        if key in _READ_BY:
            _add_group(arguments, key, given)
        elif key not in ("common_kwargs", "audio_kwargs"):
            arguments.set(key, value)
    return arguments


def chat_call_arguments(
    processor_kwargs: Mapping[str, object],
    kwargs: Mapping[str, object],
    read_by_template: Collection[str],
    video_processor: VideoProcessor | None,
    also_named: Iterable[str] = (),
) -> tuple[Settings, Any]:
    """Return what `apply_chat_template` passes on to the call, and the pictures given instead of the conversation's.

    That are `processor_kwargs`, those of `kwargs` that the template does not read, and the sampling that the video
    processor is set to. Raises TypeError for a name that neither the template nor the call reads; it may suggest one of
    `also_named`.
    """
    call: Settings = {
        **processor_kwargs,
        **{name: value for name, value in kwargs.items() if name not in read_by_template},
    }
    images = call.pop("images", None)
    check_arguments(call, clips=video_processor is not None, also_named=(*read_by_template, *also_named))
    if video_processor is not None:
        call.setdefault("num_frames", video_processor.num_frames)
        call.setdefault("fps", video_processor.fps)
        if call["num_frames"] is not None or call["fps"] is not None:
            call.setdefault("do_sample_frames", True)
    return call, images


@cache
def _groups(clips: bool) -> dict[str, frozenset[str]]:
    """The names that each group of keyword arguments may hold."""
    read_by = {group: names for group, names in _READ_BY.items() if clips or group != "videos_kwargs"}
    common = OWN.union(*read_by.values())
    return {**read_by, "text_kwargs": TEXT | OWN, "audio_kwargs": _AUDIO, "common_kwargs": common}


def _add_group(arguments: CallArguments, group: str, given: Settings) -> None:
    for name, value in (given[group] or {}).items():
        if name in OWN:
            arguments.own.setdefault(name, value)
        elif name in given:
            raise ValueError(
                f"Keyword argument {name} was passed two times:\nin a dictionary for {group} and as a **kwarg."
            )
        else:
            arguments.groups[group][name] = value
