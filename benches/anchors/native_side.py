"""This project's native engine."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_smolvlm import SmolVLM
from faster_smolvlm._rust import machine_limits
from faster_smolvlm.native import NativeSmolVLM
from faster_smolvlm.native.engine import Step
from faster_smolvlm.processor.processing_smolvlm import SmolVLMProcessor
from faster_smolvlm.vlm.smolvlm import Result

from .side import Float32, Run, Settings, clocked, normalized, prompt_ids

QUANTIZATIONS = ("int8",)


class Native:
    def __init__(self, settings: Settings, precision: str) -> None:
        self.settings = settings
        self.precision = precision

    @functools.cached_property
    def model(self) -> NativeSmolVLM:
        quantized = self.precision in QUANTIZATIONS
        options = {"quantization": self.precision} if quantized else {"dtype": self.precision}
        return NativeSmolVLM.from_pretrained(
            self.settings.checkpoint, num_threads=self.settings.threads, cache_positions=16384, **options
        )

    def ran(self) -> str:
        return f"{self.model.dtype} weights, {self.model.isa}"

    def vision(self, frame: npt.NDArray[np.uint8]) -> Run:
        frames = self.model.frames(normalized(frame))
        return clocked(lambda: self.model.encode(frames, reuse=False))

    def features(self, frame: npt.NDArray[np.uint8]) -> Float32:
        return self.model.encode(self.model.frames(normalized(frame)), reuse=False)[0]

    def prefill(self, count: int) -> Run:
        sequence = self.model.rust.open()
        return clocked(lambda: self._fill(sequence, prompt_ids(count)))

    def decode(self, context: int, batch: int) -> Run:
        rust = self.model.rust
        sequences = [rust.open() for _ in range(batch)]
        for sequence in sequences:
            self._fill(sequence, prompt_ids(context))

        def steps() -> None:
            ids = prompt_ids(batch)
            for _ in range(self.settings.new_tokens):
                ids = self._step(sequences, [1] * batch, ids, list(range(batch)))

        def run() -> float:
            for sequence in sequences:
                rust.truncate(sequence, context)
            return clocked(steps)()

        return run

    def logits(self, count: int) -> Float32:
        return self.model.logits(prompt_ids(count))[-1]

    @functools.cached_property
    def smolvlm(self) -> SmolVLM:
        return SmolVLM(self.model, SmolVLMProcessor.from_pretrained(self.settings.checkpoint))

    def photo(self) -> Run:
        return clocked(self._first_token)

    def photo_logits(self) -> tuple[Float32, int]:
        seen: list[Float32] = []

        def keep(_: Any, scores: Float32) -> Float32:
            seen.append(scores[0].copy())
            return scores

        result = self._first_token(logits_processor=[keep])
        return seen[0], result.usage.prompt_tokens

    def _first_token(self, **options: Any) -> Result:
        picture = str(self.settings.photograph)
        return self.smolvlm.generate(self.settings.question, images=[picture], max_new_tokens=1, reuse=False, **options)

    def text_bytes(self) -> int:
        """Bytes of weights that a decoding step reads."""
        return self.model.rust.text_bytes

    def limits(self) -> tuple[float, float, float | None]:
        """Measure the machine: bytes a second read, float32 operations a second, bfloat16 ones if it has them."""
        return machine_limits(self.settings.threads)

    def _fill(self, sequence: int, ids: npt.NDArray[np.int64]) -> None:
        rust = self.model.rust
        rust.truncate(sequence, 0)
        for begin in range(0, len(ids), rust.STEP_ROWS):
            part = ids[begin : begin + rust.STEP_ROWS]
            last = [len(part) - 1] if begin + len(part) == len(ids) else []
            self._step([sequence], [len(part)], part, last)

    def _step(self, sequences: list[int], lengths: list[int], ids: npt.NDArray[np.int64], wanted: list[int]) -> Any:
        rows = np.full(len(ids), -1, np.int64)
        step = Step(sequences, lengths, ids, self.model.no_features(), rows, wanted)
        return self.model.rust.step(step, True)
