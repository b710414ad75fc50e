"""From logits to tokens: one loop over an engine, logits processors, stop rules, streamers; without importing torch."""

from __future__ import annotations

from .config import GenerationConfig
from .loop import Decoding, Engine
from .streamers import TextIteratorStreamer

__all__ = ["Decoding", "Engine", "GenerationConfig", "TextIteratorStreamer"]
