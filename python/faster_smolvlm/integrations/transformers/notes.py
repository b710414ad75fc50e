"""Warnings that are logged once: why something was left to Transformers."""

from __future__ import annotations

import logging

_LOG = logging.getLogger("faster_smolvlm")
_logged: set[str] = set()


def say_once(message: str) -> None:
    """Log a warning, the first time only."""
    if message not in _logged:
        _logged.add(message)
        _LOG.warning(message)
