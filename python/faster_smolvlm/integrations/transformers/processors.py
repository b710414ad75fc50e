"""What the accelerated processors do differently: they accelerate the parts that they are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def constructor(base: Any) -> Callable[..., None]:
    """Return an `__init__` for a subclass of a processor of Transformers, which reads the names of parts from it."""

    @wraps(base.__init__)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        from .inplace import accelerate_parts

        base.__init__(self, *args, **kwargs)
        accelerate_parts(self)

    return __init__
