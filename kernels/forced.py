"""What is forced upon the choice of an implementation, for tests and comparisons; nothing else keeps such a state.

Nothing here imports triton: the callers ask before they know that it is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

IMPLEMENTATIONS = ("triton", "torch")

_implementation: str | None = None
_architecture: str | None = None


def implementation() -> str | None:
    """Return the implementation that every step takes, if one is forced."""
    return _implementation


def architecture() -> str | None:
    """Return the architecture whose settings the kernels take, if one is forced."""
    return _architecture


def interpreted() -> bool:
    """Return whether Triton's interpreter runs the kernels, on a CPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@contextmanager
def use_implementation(name: str) -> Iterator[None]:
    """Force one of `IMPLEMENTATIONS`; ValueError for another."""
    global _implementation
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be 'triton' or 'torch', got {name!r}.")
    before, _implementation = _implementation, name
    try:
        yield
    finally:
        _implementation = before


@contextmanager
def use_architecture(name: str) -> Iterator[None]:
    """Force the settings of an architecture, whatever the device is."""
    global _architecture
    before, _architecture = _architecture, name
    try:
        yield
    finally:
        _architecture = before
