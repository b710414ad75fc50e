"""The model on the CPU without torch: the Rust engine, its caches, and its place in the generation loop."""

from .engine import NativeEngine, Usage
from .model import NativeSmolVLM

__all__ = ["NativeEngine", "NativeSmolVLM", "Usage"]
