"""What an engine has to do to be compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Run = Callable[[], float]
"""Does the work once and returns the seconds that it took, without what is not the work."""


@dataclass(frozen=True)
class Settings:
    """What every side gets. `photograph` is a JPEG file, `question` what is asked about it."""

    checkpoint: Path
    cache: Path
    threads: int
    photograph: Path
    question: str
    new_tokens: int
    export_python: Path | None
    llama_source: Path | None


class Side(Protocol):
    """One engine with one precision. Models are loaded when the first work asks for them.

    The work: `vision` encodes one frame, uint8 [size, size, 3]; `prefill` reads a prompt of `count` tokens up to the
    logits of the last; `decode` makes `new_tokens` tokens greedily, for each of `batch` sequences, after a context of
    `context` tokens; `photo` goes from the file of a picture to the first token.
    """

    def __init__(self, settings: Settings, precision: str) -> None: ...

    def ran(self) -> str:
        """Say what really computes: types, instruction set, as far as the engine tells."""
        ...

    def vision(self, frame: npt.NDArray[np.uint8]) -> Run: ...
    def prefill(self, count: int) -> Run: ...
    def decode(self, context: int, batch: int) -> Run: ...
    def photo(self) -> Run: ...
    def features(self, frame: npt.NDArray[np.uint8]) -> Float32:
        """Return the image tokens of one frame, [tokens, hidden_size]."""
        ...

    def logits(self, count: int) -> Float32:
        """Return the logits after a prompt of `count` tokens, [vocabulary]."""
        ...

    def photo_logits(self) -> tuple[Float32, int]:
        """Return the logits after the photograph's prompt, [vocabulary], and the tokens of that prompt."""
        ...


def prompt_ids(count: int) -> npt.NDArray[np.int64]:
    """A prompt of ordinary tokens, the same for everyone."""
    return np.random.default_rng(count).integers(1000, 40000, count)


def normalized(frame: npt.NDArray[np.uint8]) -> Float32:
    """Pixels as the checkpoint's processor makes them: [1, 1, 3, size, size] between -1 and 1."""
    return (frame.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None, None]


def clocked(run: Callable[[], Any]) -> Run:
    """Time all of `run`."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return timed
