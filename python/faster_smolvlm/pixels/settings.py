"""The settings of an image processor: their names, what they may be, and how they are brought into one form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from .size import SizeDict, size_dict

Check = Callable[[Any], bool]


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


def _int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return _number(value) or (isinstance(value, (list, tuple)) and all(map(_number, value)))


def _size(value: Any) -> bool:
    if isinstance(value, dict):
        return all(key in SizeDict.__dataclass_fields__ and _int(side) for key, side in value.items())
    return isinstance(value, SizeDict) or _int(value) or (isinstance(value, (list, tuple)) and all(map(_int, value)))


def _max_image_size(value: Any) -> bool:
    edge: Any = value.get("longest_edge") if isinstance(value, (dict, SizeDict)) else None
    return _int(edge) and edge > 0


def _name(value: Any) -> bool:
    return isinstance(value, (str, Enum))


def _device(value: Any) -> bool:
    return _int(value) or isinstance(value, str) or type(value).__module__ == "torch"


# What each setting may be beside None, in words for the message.
CHECKS: dict[str, tuple[Check, str]] = {
    "do_convert_rgb": (_bool, "a bool"),
    "do_resize": (_bool, "a bool"),
    "size": (_size, "an int, two ints or a dict with 'longest_edge' or with 'height' and 'width'"),
    "default_to_square": (_bool, "a bool"),
    "crop_size": (_size, "an int, two ints or a dict"),
    "resample": (_int, "a PIL.Image.Resampling or its number"),
    "do_rescale": (_bool, "a bool"),
    "rescale_factor": (_number, "a number"),
    "do_normalize": (_bool, "a bool"),
    "image_mean": (_numbers, "a number or one for each channel"),
    "image_std": (_numbers, "a number or one for each channel"),
    "do_pad": (_bool, "a bool"),
    "pad_size": (_size, "an int, two ints or a dict"),
    "do_center_crop": (_bool, "a bool"),
    "data_format": (_name, "'channels_first' or 'channels_last'"),
    "input_data_format": (_name, "'channels_first' or 'channels_last'"),
    "device": (_device, "a device"),
    "return_tensors": (_name, "'pt' or 'np'"),
    "disable_grouping": (_bool, "a bool"),
    "image_seq_length": (_int, "an int"),
    "do_image_splitting": (_bool, "a bool"),
    "max_image_size": (_max_image_size, "a dict with a positive 'longest_edge'"),
    "return_row_col_info": (_bool, "a bool"),
    "max_tiles": (_int, "an int"),
    "upscale": (_bool, "a bool"),
    "output_dtype": (lambda value: _name(value) or type(value).__module__ == "torch", "a dtype or its name"),
}
# These three have no None in their type.
_REQUIRED = {"do_image_splitting", "max_image_size", "return_row_col_info"}

_VALUES: dict[str, tuple[Any, ...]] = {
    "resample": tuple(range(6)),
    "data_format": ("channels_first", "channels_last"),
    "input_data_format": ("channels_first", "channels_last"),
    "return_tensors": ("pt", "np"),
    "output_dtype": ("float32", "bfloat16", "uint8"),
}

NAMES = tuple(CHECKS)


def validate(kwargs: dict[str, Any], checks: Mapping[str, tuple[Check, str]] = CHECKS) -> None:
    """Check names and types of the keyword arguments of a call.

    Raises TypeError for an unknown name, ValueError for an unknown choice and, as Transformers,
    `StrictDataclassFieldValidationError` for a value of a wrong type.
    """
    for name, value in kwargs.items():
        if name not in checks:
            raise TypeError(f"got an unexpected keyword argument {name!r}; known are {', '.join(checks)}")
        check, expected = checks[name]
        if value is None and name not in _REQUIRED:
            continue
        if value is None or not check(value):
            from huggingface_hub.errors import StrictDataclassFieldValidationError

            problem = f"Field {name!r} expected {expected}, got {type(value).__name__} (value: {value!r})"
            raise StrictDataclassFieldValidationError(name, TypeError(problem))
        if name in _VALUES and plain(value) not in _VALUES[name]:
            if name == "return_tensors":
                raise ValueError(f"{value} is not a valid TensorType, please select one of ['pt', 'np']")
            raise ValueError(f"{name} must be one of {_VALUES[name]}, got {value!r}")


def plain(value: Any) -> Any:
    """The value of an enum's member, the name of a torch dtype; anything else as it is."""
    if type(value).__module__ == "torch":
        return str(value).removeprefix("torch.")
    return value.value if isinstance(value, Enum) else value


def standardize(settings: dict[str, Any]) -> dict[str, Any]:
    """Bring sizes into `SizeDict`s and lists of numbers into tuples."""
    settings = dict(settings)
    square = settings.get("default_to_square")
    if settings.get("size") is not None:
        settings["size"] = size_dict(settings["size"], default_to_square=square)
    for name in ("crop_size", "pad_size"):
        if settings.get(name) is not None:
            settings[name] = size_dict(settings[name], name=name)
    for name in ("image_mean", "image_std"):
        if isinstance(settings.get(name), list):
            settings[name] = tuple(settings[name])
    return settings


def check_complete(settings: dict[str, Any]) -> None:
    """Raise ValueError where a step is asked for without what it needs."""
    if settings["do_rescale"] and settings["rescale_factor"] is None:
        raise ValueError("`rescale_factor` must be specified if `do_rescale` is `True`.")
    if settings["do_normalize"] and (settings["image_mean"] is None or settings["image_std"] is None):
        raise ValueError("`image_mean` and `image_std` must both be specified if `do_normalize` is `True`.")
    if settings["do_resize"] and (settings["size"] is None or settings["resample"] is None):
        raise ValueError("`size` and `resample` must be specified if `do_resize` is `True`.")


def target(settings: dict[str, Any]) -> dict[str, Any]:
    """How stage A resizes, as the arguments of the native functions."""
    if not settings["do_resize"]:
        return {"longest_edge": None, "exact": None}
    options = {"upscale": settings["upscale"] is not False, "max_tiles": settings["max_tiles"]}
    return {**target_size(settings["size"]), **options}


def target_size(size: Any) -> dict[str, Any]:
    """What stage A resizes to, as the arguments of the native functions."""
    if not isinstance(size, SizeDict):
        size = size_dict(size)
    if size.longest_edge:
        return {"longest_edge": size.longest_edge, "exact": None}
    if size.height and size.width:
        return {"longest_edge": None, "exact": (size.height, size.width)}
    raise ValueError("size must be a dictionary with key 'longest_edge' or 'height' and 'width'.")
