"""One error for keyword arguments that nobody reads: it names the argument and the nearest known one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from functools import cache

from .quoting import shown

# How similar an unknown name has to be to a known one to be taken for a misspelling of it.
_MISSPELT = 0.8
_NAMELESS = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class UnknownSettingError(TypeError, ValueError):
    """An argument of a generation that nobody reads.

    It is a TypeError as everywhere in this package, and a ValueError as with `generate` of Transformers.
    """


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like a name; empty if none is known."""
    from difflib import get_close_matches  # for errors alone: it would take 1.5 ms of every start

    return next(iter(get_close_matches(name, sorted(known), n=1, cutoff=0.0)), "")


def unknown_name(name: str, known: Iterable[str], group: str = "", error: type[TypeError] = TypeError) -> TypeError:
    """Return the error for a keyword argument that nobody reads: it names the argument and the nearest known one.

    `group` is empty or " in images_kwargs" for an argument that was given there.
    """
    nearest = nearest_name(name, known)
    hint = f"; the nearest known one is {nearest!r}" if nearest else ""
    return error(f"got an unexpected keyword argument {shown(name)}{group}: nothing here reads it{hint}")


def check_names(
    given: Iterable[str],
    known: Collection[str],
    group: str = "",
    *,
    also_named: Iterable[str] = (),
    error: type[TypeError] = TypeError,
) -> None:
    """Raise `error` if one of the given names is not known.

    `also_named` are further names that the error may suggest, such as those of parameters.
    """
    for name in given:
        if name not in known:
            raise unknown_name(name, {*known, *also_named}, group, error)


def is_misspelt(name: str, known: Collection[str]) -> bool:
    """Whether an unknown name looks like one of the known ones."""
    from difflib import get_close_matches

    return bool(get_close_matches(name, known, n=1, cutoff=_MISSPELT))


@cache
def parameters_of(function: Callable[..., object]) -> tuple[str, ...]:
    """Return the names of the parameters of a function, without `self`, `*args` and `**kwargs`."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(entry.name for entry in parameters if entry.kind not in _NAMELESS and entry.name != "self")
