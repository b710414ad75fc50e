"""The settings of one call: checked, completed from the processor's attributes, and brought into one form."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypedDict

from ..integers import as_float, as_int
from ..quoting import shown
from ..unknown_names import check_names
from .setting_checks import is_of_torch
from .settings import OF_CALLER, SETTINGS, Reader, call_names
from .size import SizeDict, size_dict

Settings = dict[str, Any]
"""Values by the names of the table of settings, which says what each may be."""


class _Size(TypedDict):
    longest_edge: int | None
    exact: tuple[int, int] | None


class ResizeTarget(_Size, total=False):
    """To which size the native functions resize a picture first: to a longest edge, exactly, or (both None) not."""

    upscale: bool
    max_tiles: int | None


KEEP_SIZE: ResizeTarget = {"longest_edge": None, "exact": None}


def call_settings(processor: object, given: Mapping[str, object], reader: Reader) -> Settings:
    """Return the settings of a call: what is `given`, and the attributes of the processor for the rest.

    Raises TypeError for an unknown name, ValueError for an unknown choice and, as Transformers,
    `StrictDataclassFieldValidationError` for a value of a wrong type.
    """
    names = call_names(reader)
    check_names(given, names)
    given = _of_python(given)
    for name, value in given.items():
        check_value(name, value)
    settings = {name: given[name] if name in given else getattr(processor, name, None) for name in names}
    if settings["media_policy"] is None:
        settings["media_policy"] = getattr(processor, "media_policy")  # noqa: B009 - of any processor
    return standardize(settings)


def check_of_caller(settings: Settings) -> None:
    """Raise `StrictDataclassFieldValidationError` if a setting about the caller is of a wrong type.

    Other attributes may hold anything until a call reads them, as in Transformers; these are about safety and speed.
    """
    for name in OF_CALLER & settings.keys():
        check_value(name, settings[name])


def check_value(name: str, value: object) -> None:
    """Raise `StrictDataclassFieldValidationError` for a value of a wrong type, ValueError for an unknown choice."""
    setting = SETTINGS[name]
    if value is None and not setting.required:
        return
    if value is None or not setting.check(value):
        from huggingface_hub.errors import StrictDataclassFieldValidationError

        problem = f"Field {shown(name)} expected {setting.expected}, got {type(value).__name__} (value: {shown(value)})"
        raise StrictDataclassFieldValidationError(name, TypeError(problem))
    if setting.choices and plain(value) not in setting.choices:
        if name == "return_tensors":
            raise ValueError(f"{value} is not a valid TensorType, please select one of ['pt', 'np']")
        raise ValueError(f"{name} must be one of {setting.choices}, got {shown(value)}")


def _of_python(settings: Mapping[str, object]) -> Settings:
    """Return settings with Python's own numbers in place of those of NumPy and torch; metadata stay as they are."""
    return {name: value if name == "video_metadata" else _number(value) for name, value in settings.items()}


def _number(value: object) -> object:
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(map(_number, value))
    if isinstance(value, dict) and type(value) is dict:
        return {name: _number(entry) for name, entry in value.items()}
    if isinstance(value, (int, float)) or not hasattr(value, "dtype"):
        return value
    for number in (as_int(value), as_float(value)):
        if number is not None:
            return number
    return value


def plain(value: object) -> object:
    """The value of an enum's member, the name of a torch dtype; anything else as it is."""
    if is_of_torch(value):
        return str(value).removeprefix("torch.")
    return value.value if isinstance(value, Enum) else value


def tensor_type(settings: Settings) -> str | None:
    """The `return_tensors` of a call by its name."""
    asked = settings["return_tensors"]
    return None if asked is None else str(plain(asked))


def standardize(settings: Settings) -> Settings:
    """Bring sizes into `SizeDict`s and lists of numbers into tuples."""
    settings = _of_python(settings)
    if settings.get("size") is not None:
        settings["size"] = size_dict(settings["size"], default_to_square=settings.get("default_to_square"))
    for name in ("crop_size", "pad_size"):
        if settings.get(name) is not None:
            settings[name] = size_dict(settings[name], name=name)
    for name in ("image_mean", "image_std"):
        if isinstance(settings.get(name), list):
            settings[name] = tuple(settings[name])
    return settings


def check_complete(settings: Settings) -> None:
    """Raise ValueError if a step is asked for without what it needs."""
    if settings["do_rescale"] and settings["rescale_factor"] is None:
        raise ValueError("`rescale_factor` must be specified if `do_rescale` is `True`.")
    if settings["do_normalize"] and (settings["image_mean"] is None or settings["image_std"] is None):
        raise ValueError("`image_mean` and `image_std` must both be specified if `do_normalize` is `True`.")
    if settings["do_resize"] and (settings["size"] is None or settings["resample"] is None):
        raise ValueError("`size` and `resample` must be specified if `do_resize` is `True`.")


def resize_target(settings: Settings) -> ResizeTarget:
    """To which size pictures are resized before they are cut into tiles."""
    if not settings["do_resize"]:
        return KEEP_SIZE
    target = target_of_size(settings["size"])
    target["upscale"] = settings["upscale"] is not False
    target["max_tiles"] = settings["max_tiles"]
    return target


def target_of_size(size: object) -> ResizeTarget:
    """The target for a size; ValueError for one that has neither a longest edge nor both height and width."""
    sides = size if isinstance(size, SizeDict) else size_dict(size)
    if sides.longest_edge:
        return {"longest_edge": sides.longest_edge, "exact": None}
    if sides.height and sides.width:
        return {"longest_edge": None, "exact": (sides.height, sides.width)}
    raise ValueError("size must be a dictionary with key 'longest_edge' or 'height' and 'width'.")
