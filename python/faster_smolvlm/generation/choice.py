"""Which engine serves a call, and how one is forced on a CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..quoting import shown

ENGINE_VARIABLE = "FASTER_SMOLVLM_ENGINE"
"""The environment variable that forces "native" or "torch" on a CPU."""


@dataclass(frozen=True)
class ServedBy:
    """The engine of a call: "native", "torch" or "graph" (torch with captured steps), and why it is not the native one.

    `reason` is empty for the native engine.
    """

    name: str
    reason: str = ""


def forced_engine(engine: str | None = None) -> str | None:
    """Return the engine that an argument, or else the environment, forces: "native", "torch" or None.

    Raises ValueError for another name.
    """
    name, source = (engine, "engine") if engine is not None else (os.environ.get(ENGINE_VARIABLE), ENGINE_VARIABLE)
    if name not in (None, "", "native", "torch"):
        raise ValueError(f"{source} has to be native or torch, got {shown(name)}")
    return name or None
