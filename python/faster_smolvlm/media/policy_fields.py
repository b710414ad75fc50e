"""The checks of the fields of a policy, by the types that they are declared with."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Collection

from ..integers import as_float, as_int
from ..quoting import shown, type_name

_DOMAIN = re.compile(r"[^\s/:@?#*%\\\[\]]+")


def checked(name: str, declared: str, value: object, least: int) -> object:
    """Return `value` as the field `name`, declared as `declared`, keeps it.

    Whole numbers are not smaller than `least`. Raises TypeError for another type, and ValueError for a value that makes
    no sense.
    """
    optional = declared.removesuffix(" | None")
    if value is None and optional != declared:
        return None
    return _CHECKS[optional](f"MediaPolicy.{name}", value, least)


def _whole(name: str, value: object, least: int) -> int:
    number = as_int(value, floats=True)  # 1e9 is one
    if number is None:
        raise _wrong_type(name, "a whole number", value)
    if number < least:
        raise ValueError(f"{name} must be {'positive' if least == 1 else 'not negative'}, got {number}")
    return number


def _seconds(name: str, value: object, _least: int) -> float:
    number = as_float(value)
    if number is None:
        raise _wrong_type(name, "a number", value)
    if math.isnan(number) or number <= 0:
        raise ValueError(f"{name} must be positive, got {number}")
    return number


def _switch(name: str, value: object, _least: int) -> bool:
    if not isinstance(value, bool):  # the text "false" would count as true
        raise _wrong_type(name, "True or False", value)
    return value


def _names(name: str, value: object, _least: int) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Collection):
        raise _wrong_type(name, "a tuple of strings", value)
    for item in value:
        if not isinstance(item, str):
            raise _wrong_type(f"each of {name}", "a string", item)
        if name.endswith("domains") and not (_DOMAIN.fullmatch(item) or _is_ipv6(item)):
            raise ValueError(f"{name} holds names or addresses of hosts, such as 'example.com', got {shown(item)}")
    return tuple(value)


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return False


def _ports(name: str, value: object, _least: int) -> tuple[int, ...] | range:
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        raise _wrong_type(name, "a tuple of whole numbers", value)
    ends = [*value[:1], *value[-1:]] if isinstance(value, range) else list(value)
    ports = [_whole(f"each of {name}", port, 1) for port in ends]
    if any(port > 65_535 for port in ports):
        raise ValueError(f"each of {name} must be at most 65535, got {max(ports)}")
    return value if isinstance(value, range) else tuple(ports)


_CHECKS: dict[str, Callable[[str, object, int], object]] = {
    "int": _whole,
    "float": _seconds,
    "bool": _switch,
    "tuple[str, ...]": _names,
    "tuple[int, ...] | range": _ports,
}


def _wrong_type(name: str, expected: str, value: object) -> TypeError:
    return TypeError(f"{name} must be {expected}, got {shown(value)} ({type_name(value)})")
