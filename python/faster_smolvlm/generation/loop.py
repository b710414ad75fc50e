"""The generation loop: logits, processors, sampler, stop rules, one step after the other, over any engine."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from . import arrays
from .arrays import Array
from .config import GenerationConfig
from .logits import LogitsProcessor
from .sampling import Sampler, check_drawn
from .stopping import FinishReason, StopRules


class Engine(Protocol):
    """A model that holds the state of one batch of sequences between steps.

    Logits are [rows, vocabulary], NumPy arrays or torch tensors; tokens are int64 [rows] of the same kind. An engine
    whose `runs_ahead` is true also has `greedy(tokens)`, an iterator over the likeliest tokens that follow.
    """

    def prefill(self) -> Array:
        """Read the prompts, pictures included; return the logits of the last position of each row."""

    def step(self, tokens: Array) -> Array:
        """Append one token to each row; return the logits after it."""

    def select(self, rows: Sequence[int]) -> None:
        """Make the state that of these rows, in this order; rows may be left out and may repeat."""

    def free(self) -> None:
        """Give back the memory of the state; called once, also after an error."""


EngineT = TypeVar("EngineT", bound=Engine)


class Decoding(Generic[EngineT]):
    """One call of `generate` in progress: each iteration makes a step and gives the new token of every row, [rows].

    Closing it, or leaving its `with` block, ends the call between two steps and frees the engine. Afterwards `ids`
    [rows, length] holds prompt and answer, `finish_reasons` one word a row, and `scores` and `logits` what was asked
    for, one [rows, vocabulary] a step. With `sees_every_row`, finished rows are never taken out of the engine.
    """

    def __init__(
        self,
        engine: EngineT,
        prompts: Array,
        *,
        copies: int,
        max_new_tokens: int,
        pad_id: int | None,
        processors: Sequence[LogitsProcessor],
        sees_every_row: bool,
        sampler: Sampler,
        stop: StopRules,
        config: GenerationConfig,
    ) -> None:
        self.engine = engine
        self._copies = copies
        self._pad_id = pad_id
        self._processors = processors
        self._sampler = sampler
        self._stop = stop
        rows = prompts.shape[0] * copies
        self._length = self.prompt_length = prompts.shape[1]
        self._ids = arrays.full_ids(prompts, (rows, self._length + max_new_tokens), 0 if pad_id is None else pad_id)
        self._ids[:, : self._length] = prompts if copies == 1 else prompts[repeated(prompts.shape[0], copies)]
        self._live = list(range(rows))  # the rows that the engine still works on
        self._reasons: dict[int, FinishReason] = {}
        self._lengths: dict[int, int] = {}
        collects = bool(config.return_dict_in_generate)
        self.scores: tuple[Array, ...] | None = () if collects and config.output_scores else None
        self.logits: tuple[Array, ...] | None = () if collects and config.output_logits else None
        self._may_drop = pad_id is not None and not sees_every_row
        self._steps = self._run()

    @property
    def ids(self) -> Array:
        """Prompt and what was generated so far, int64 [rows, length]."""
        return self._ids[:, : self._length]

    @property
    def finish_reasons(self) -> list[FinishReason]:
        """For each row "stop" or "length"; "cancelled" where the call was ended before."""
        return [self._reasons.get(row, "cancelled") for row in range(self._ids.shape[0])]

    @property
    def lengths(self) -> list[int]:
        """For each row the number of tokens generated so far, without the padding after its end."""
        return [self._lengths.get(row, self._length - self.prompt_length) for row in range(self._ids.shape[0])]

    def __iter__(self) -> Iterator[Array]:
        return self._steps

    def close(self) -> None:
        """End the call and free the engine."""
        self._steps.close()

    def __enter__(self) -> Decoding[EngineT]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> Generator[Array, None, None]:
        try:
            logits = self.engine.prefill()
            if self._copies > 1:
                rows = repeated(logits.shape[0], self._copies)
                self.engine.select(rows)
                logits = logits[rows]
            tokens = self._choose(logits)
            ahead: Iterator[Array] | None = None
            while True:
                yield self._append(tokens)
                if len(self._reasons) == self._ids.shape[0]:
                    return
                if self._drop_finished():
                    tokens, ahead = self._ids[self._live, self._length - 1], None
                if self._may_run_ahead():
                    ahead = ahead or self.engine.greedy(tokens)  # type: ignore[attr-defined]
                    tokens = next(ahead)
                else:
                    tokens = self._choose(self.engine.step(tokens))
        finally:
            self.engine.free()

    def _may_run_ahead(self) -> bool:
        """Whether the engine can choose by itself, several tokens before they are looked at here."""
        plain = self._sampler.greedy and not self._processors and self.scores is None and self.logits is None
        return plain and bool(getattr(self.engine, "runs_ahead", False))

    def _choose(self, logits: Array) -> Array:
        scores = logits = arrays.float32(logits)
        if self._processors:
            ids = self.ids if len(self._live) == self._ids.shape[0] else self.ids[self._live]
            for processor in self._processors:
                scores = processor(ids, scores)
        if self.scores is not None:
            self.scores += (scores,)
        if self.logits is not None:
            self.logits += (logits,)
        return self._sampler(scores, self._live)

    def _append(self, tokens: Array) -> Array:
        """Write the new column, find out which rows it finishes, and return it."""
        chosen = tokens.tolist()  # the one look at the device for this token
        check_drawn(chosen)
        if self._pad_id is not None and self._reasons:
            done = [index for index, row in enumerate(self._live) if row in self._reasons]
            if done:
                tokens[done] = self._pad_id
        column = arrays.beside(tokens, self._ids)
        if len(self._live) == self._ids.shape[0]:
            self._ids[:, self._length] = column
        else:
            self._ids[self._live, self._length] = column
        self._length += 1
        rows = [row for row in self._live if row not in self._reasons]
        newest = [token for row, token in zip(self._live, chosen, strict=True) if row not in self._reasons]
        generated = self._length - self.prompt_length
        finished = self._stop(rows, newest, generated, self.ids, self.scores)
        self._reasons.update(finished)
        self._lengths.update(dict.fromkeys(finished, generated))
        return tokens if len(self._live) == self._ids.shape[0] else self._ids[:, self._length - 1]

    def _drop_finished(self) -> bool:
        """Take finished rows out of the engine once they are a quarter of its rows; it costs a copy of the cache."""
        if not self._may_drop:
            return False
        kept = [index for index, row in enumerate(self._live) if row not in self._reasons]
        if 4 * (len(self._live) - len(kept)) < max(len(self._live), 4):
            return False
        self.engine.select(kept)
        for processor in self._processors:
            if hasattr(processor, "select"):
                processor.select(kept)
        self._live = [self._live[index] for index in kept]
        return True


def repeated(rows: int, copies: int) -> list[int]:
    """Index that repeats each of `rows` rows `copies` times."""
    return [row for row in range(rows) for _ in range(copies)]
