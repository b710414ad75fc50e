"""The generation loop: logits, processors, sampler, stop rules, one step after the other, over any engine."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypedDict, TypeGuard, TypeVar

from . import arrays
from .arrays import Array
from .cancelling import Cancellation, CancelledCall, Turn
from .config import GenerationConfig
from .logits import LogitsProcessor, applied
from .sampling import Sampler, check_drawn
from .stopping import FinishReason, StopRules
from .streamers import Streamer

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Engine(Protocol):
    """What a generation runs on: a model that holds the state of one batch of sequences between steps.

    Logits are [rows, vocabulary], NumPy arrays or torch tensors; tokens are int64 [rows] of the same kind. An engine
    may have more: see `GreedyEngine`, `LimitedEngine` and `ReservingEngine`.
    """

    def prefill(self) -> Array:
        """Read the prompts, pictures included; return the logits of the last position of each row."""

    def step(self, tokens: Array) -> Array:
        """Append one token to each row; return the logits after it."""

    def select(self, rows: Sequence[int]) -> None:
        """Make the state that of these rows, in this order; rows may be left out and may repeat."""

    def free(self) -> None:
        """Give back the memory of the state; called once, also after an error."""


class GreedyEngine(Engine, Protocol):
    """An engine that can choose the likeliest tokens by itself, several before the loop looks at them."""

    @property
    def has_greedy(self) -> bool:
        """Whether it can at the moment."""

    def greedy(self, tokens: Array) -> Iterator[Array]:
        """Append `tokens`; give the likeliest tokens that follow, int64 [rows], one step after the other.

        The next `step`, `select` or `greedy` goes on from the last tokens that were taken from the iterator.
        """


class LimitedEngine(Engine, Protocol):
    """An engine whose sequences have a largest length."""

    @property
    def new_token_limits(self) -> Sequence[int]:
        """How many tokens can follow each prompt."""


class ReservingEngine(Engine, Protocol):
    """An engine whose memory is shared with other calls."""

    def reserve(self, turn: Turn, copies: int, max_new_tokens: int) -> None:
        """Wait until there is memory for the call, before `prefill`; `turn` says which thread works on it."""


def row_limits(engine: Engine, copies: int) -> list[int] | None:
    """Return how many new tokens each row of a call can take, None if the engine has no limit."""
    limits: Sequence[int] | None = getattr(engine, "new_token_limits", None)
    return None if limits is None else [limit for limit in limits for _ in range(copies)]


def _reserves(engine: Engine) -> TypeGuard[ReservingEngine]:
    return hasattr(engine, "reserve")


def _has_greedy(engine: Engine) -> TypeGuard[GreedyEngine]:
    return bool(getattr(engine, "has_greedy", False))


EngineT = TypeVar("EngineT", bound=Engine)


class DecodingRules(TypedDict):
    """How a `Decoding` chooses and ends.

    `copies` answers are made for each prompt, of `max_new_tokens` at most; finished rows are filled with `pad_id`, or
    go on if it is None. With `sees_every_row`, finished rows are never taken out of the engine, since a processor or
    criterion of the caller may look at all of them. `config` says what is collected.
    """

    copies: int
    max_new_tokens: int
    pad_id: int | None
    processors: Sequence[LogitsProcessor]
    sees_every_row: bool
    sampler: Sampler
    stop: StopRules
    config: GenerationConfig


class Decoding(Generic[EngineT]):
    """One call of `generate` in progress: each iteration makes a step and gives the new token of every row, [rows].

    `close`, which any thread may call, or leaving its `with` block ends the call and frees the engine: at once between
    two steps, else after the step that another thread is making, or the frame or part of the prompt that an engine with
    a `cancellation` is at. Iterating in two threads at once is a RuntimeError. Afterwards `ids` [rows, length] holds
    prompt and answer, `finish_reasons` one word a row, and `scores` and `logits` what was asked for, one
    [rows, vocabulary] a step.
    """

    def __init__(self, engine: EngineT, prompts: Array, **rules: Unpack[DecodingRules]) -> None:
        copies, pad_id, config = rules["copies"], rules["pad_id"], rules["config"]
        self.engine = engine
        self._copies = copies
        self._max_new_tokens = rules["max_new_tokens"]
        self._pad_id = pad_id
        self._processors = rules["processors"]
        self._sampler = rules["sampler"]
        self._stop = rules["stop"]
        rows = prompts.shape[0] * copies
        self._length = self.prompt_length = prompts.shape[1]
        capacity = self._length + rules["max_new_tokens"]
        self._ids = arrays.full_ids(prompts, (rows, capacity), 0 if pad_id is None else pad_id)
        self._ids[:, : self._length] = prompts if copies == 1 else prompts[repeated(prompts.shape[0], copies)]
        self._live = list(range(rows))  # the rows that the engine still works on
        self._reasons: dict[int, FinishReason] = {}
        self._lengths: dict[int, int] = {}
        collects = bool(config.return_dict_in_generate)
        self.scores: tuple[Array, ...] | None = () if collects and config.output_scores else None
        self.logits: tuple[Array, ...] | None = () if collects and config.output_logits else None
        self._may_drop = pad_id is not None and not rules["sees_every_row"]
        self._steps = self._run()
        self._turn = Turn()
        self._cancellation: Cancellation = getattr(engine, "cancellation", None) or Cancellation()

    @property
    def ids(self) -> Array:
        """Prompt and what was generated so far, int64 [rows, length]."""
        return self._ids[:, : self._length]

    @property
    def finish_reasons(self) -> list[FinishReason]:
        """For each row "stop" or "length"; "cancelled" if the call was ended before."""
        return [self._reasons.get(row, "cancelled") for row in range(self._ids.shape[0])]

    @property
    def lengths(self) -> list[int]:
        """For each row the number of tokens generated so far, without the padding after its end."""
        return [self._lengths.get(row, self._length - self.prompt_length) for row in range(self._ids.shape[0])]

    def __iter__(self) -> Iterator[Array]:
        return self

    def __next__(self) -> Array:
        try:
            with self._turn:
                return next(self._steps)
        finally:
            if self._cancellation.requested:  # maybe after the step looked: `close` found the turn taken
                self._end()

    def run(self, streamer: Streamer | None = None) -> None:
        """Make all steps, handing prompt and tokens to `streamer`; one that has `closed` set ends the call."""
        with self:
            if streamer is not None:
                streamer.put(arrays.on_host(self.ids))
            for tokens in self:
                if streamer is not None:
                    streamer.put(arrays.on_host(tokens))
                    if getattr(streamer, "closed", False):
                        break

    def close(self) -> None:
        """End the call and free the engine; see the class for when. It does not wait for another thread."""
        self._cancellation.request()
        self._end()

    def _end(self) -> None:
        if self._turn.take():
            try:
                self._steps.close()
            finally:
                self._turn.give_back()

    def __enter__(self) -> Decoding[EngineT]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> Generator[Array, None, None]:
        try:
            self._reserve()
            logits = self.engine.prefill()
            if self._copies > 1:
                rows = repeated(logits.shape[0], self._copies)
                self.engine.select(rows)
                logits = logits[rows]
            tokens = self._choose(logits)
            likeliest: Iterator[Array] | None = None
            while True:
                self._cancellation.check()
                yield self._append(tokens)
                if len(self._reasons) == self._ids.shape[0]:
                    return
                if self._drop_finished():
                    tokens, likeliest = self._ids[self._live, self._length - 1], None
                engine: Engine = self.engine
                if self._is_plain and _has_greedy(engine):
                    likeliest = likeliest or engine.greedy(tokens)
                    tokens = next(likeliest)
                else:
                    tokens = self._choose(engine.step(tokens))
        except CancelledCall:
            return
        finally:
            self.engine.free()

    def _reserve(self) -> None:
        engine: Engine = self.engine
        if _reserves(engine):
            engine.reserve(self._turn, self._copies, self._max_new_tokens)

    @property
    def _is_plain(self) -> bool:
        """Whether every token is the likeliest one by the logits as they are, and nothing is collected."""
        return self._sampler.greedy and not self._processors and self.scores is None and self.logits is None

    def _choose(self, logits: Array) -> Array:
        scores = logits = arrays.float32(logits)
        if self._processors:
            ids = self.ids if len(self._live) == self._ids.shape[0] else self.ids[self._live]
            for processor in self._processors:
                scores = applied(processor, ids, scores)
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
