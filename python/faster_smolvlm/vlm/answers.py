"""What a call of `SmolVLM` gives: answers with their numbers, an answer in pieces, answers about a running video."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..generation.cancelling import Turn
from ..generation.stopping import FinishReason
from ..generation.token_bytes import IncrementalText, TokenBytes
from ..generation.usage import Usage

if TYPE_CHECKING:
    from ..generation.loop import Decoding
    from ..processor.processing_smolvlm import SmolVLMProcessor


@dataclass(frozen=True)
class Timings:
    """Seconds that each part took. Prompts of one batch share them, but for `tokens`.

    `load` is what `from_pretrained` took; `prefill` ends with the first token, `decode` covers the others.
    """

    load: float = 0.0
    image_decode: float = 0.0
    preprocessing: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    tokens: int = 0

    @property
    def per_token(self) -> float:
        """Mean seconds of a token after the first one; 0 if there was none."""
        return self.decode / (self.tokens - 1) if self.tokens > 1 else 0.0


@dataclass(frozen=True)
class Result:
    """An answer. `token_ids` are all its tokens; `text` is what they say, without leading spaces.

    `finish_reason` is "stop" (the model ended, or a stop string came), "length" (`max_new_tokens`), "cancelled", or
    "error" for a prompt of a list that could not be answered: then `error` says why, and there is no text.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    error: Exception | None = None

    @classmethod
    def failed(cls, error: Exception) -> Result:
        """Return the result of a prompt that could not be answered."""
        return cls("", [], "error", Usage(), Timings(), error)


@dataclass(frozen=True)
class Observation:
    """An answer about the frames at `times`, seconds from the start of the source; the last one is new."""

    times: list[float]
    result: Result

    @property
    def text(self) -> str:
        """What the model says."""
        return self.result.text


class Call:
    """One call in progress: iterate for the new tokens of all rows; then `results`."""

    def __init__(
        self,
        decoding: Decoding[Any],
        processor: SmolVLMProcessor,
        prompt_lengths: list[int],
        timings: Timings,
        skip_special_tokens: bool,
    ) -> None:
        self._decoding = decoding
        self._processor = processor
        self._prompt_lengths = prompt_lengths
        self._timings = timings
        self._skip_special_tokens = skip_special_tokens

    def __iter__(self) -> Iterator[Any]:
        start = time.perf_counter()
        for column in self._decoding:
            now = time.perf_counter()
            if not self._timings.prefill:
                vision = self._decoding.engine.vision_seconds
                self._timings = replace(self._timings, vision=vision, prefill=now - start - vision)
            else:
                self._timings = replace(self._timings, decode=self._timings.decode + now - start)
            yield column
            start = time.perf_counter()  # what the consumer of a stream does in between does not count

    def run(self) -> list[Result]:
        """Make all steps."""
        with self._decoding:
            for _ in self:
                pass
        return self.results()

    def close(self) -> None:
        """End the call and free what it held, as `Decoding.close`."""
        self._decoding.close()

    def _usages(self) -> list[Usage]:
        found: list[Usage] | None = getattr(self._decoding.engine, "usages", None)
        return [Usage(length) for length in self._prompt_lengths] if found is None else found

    def results(self) -> list[Result]:
        """Return what there is so far, one for each prompt."""
        rows = self._decoding.ids[:, self._decoding.prompt_length :].tolist()
        results = []
        for row, length, reason, known in zip(
            rows, self._decoding.lengths, self._decoding.finish_reasons, self._usages(), strict=True
        ):
            ids = row[:length]
            text = self._processor.decode(ids, skip_special_tokens=self._skip_special_tokens)
            usage = replace(known, completion_tokens=length)
            results.append(Result(text.lstrip(), ids, reason, usage, replace(self._timings, tokens=length)))
        return results


class Stream(Iterator[str]):
    """The pieces of one answer as they come. `close()`, or leaving the `with` block, ends the call, freeing its memory.

    Any thread may call `close()`, and it does not wait: if another thread is in `next()`, the call ends there after the
    frame, the part of the prompt or the token that is being made, and the iteration is over. Two threads in `next()` at
    once are a RuntimeError. `result` holds the answer so far.
    """

    def __init__(self, call: Call, tokens: TokenBytes, skip_special_tokens: bool) -> None:
        self._call = call
        self._started = self._closed = False
        self._turn = Turn()
        # Without a reference to this stream, so that one which is dropped ends at once.
        self._pieces = _pieces(call, IncrementalText(tokens, skip_special_tokens=skip_special_tokens))

    @property
    def result(self) -> Result:
        """The answer so far; complete once the iteration ended."""
        return self._call.results()[0]

    def __next__(self) -> str:
        with self._turn:
            while not self._closed:
                piece = next(self._pieces)
                piece = piece if self._started else piece.lstrip()
                if piece and not self._closed:
                    self._started = True
                    return piece
        raise StopIteration

    def close(self) -> None:
        """End the call and free what it held."""
        self._closed = True
        self._call.close()

    def __del__(self) -> None:
        if hasattr(self, "_call"):
            self.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _pieces(call: Call, text: IncrementalText) -> Iterator[str]:
    for column in call:
        yield text.feed(column.tolist())
    yield text.finish()
