"""The model on the CPU without torch: the Rust engine, its caches, and the engine for the generation loop."""

from ..generation.usage import Usage
from .engine import NativeEngine
from .generate import start_generation
from .model import NativeSmolVLM

__all__ = ["NativeEngine", "NativeSmolVLM", "Usage", "start_generation"]
