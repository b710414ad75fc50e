"""The native model in the generation loop: one batch of prompts, NumPy in and out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from .._rust import NativeModel
from ..checkpoint.configuration_smolvlm import SmolVLMConfig
from ..generation.cancelling import Cancellation, Turn
from ..generation.usage import Usage
from .admission import Admission, CallPages, most_after
from .frames import Float32, Frame
from .lookup import LOOKUP_TOKENS, PromptLookup
from .prompts import Int64, PromptBatch, Step, cut_into_steps
from .reuse import PrefixCache, Salt, Unit, salt_key
from .serial import SerialModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

ResultT = TypeVar("ResultT")
Progress: TypeAlias = Callable[[int, int], None]
_VAIN_TRIES = 4
"""How often in a row a step fails while nothing is kept for reuse, until it is given up."""


class LoadedModel(Protocol):
    """What the engine needs of a `NativeSmolVLM`."""

    rust: SerialModel
    config: SmolVLMConfig
    position_limit: int
    prefixes: PrefixCache
    admission: Admission

    def frames(self, pixel_values: npt.ArrayLike, pixel_attention_mask: npt.ArrayLike | None = None) -> list[Frame]:
        """Return the real frames of a batch."""

    def encoded(self, features: npt.ArrayLike) -> Frame:
        """Return image tokens as a frame."""

    def encode(
        self,
        frames: Sequence[Frame],
        *,
        reuse: bool = True,
        salt: bytes = b"",
        done: Callable[[], None] | None = None,
    ) -> tuple[Float32, list[bool]]:
        """Return the image tokens of frames, and which frames were known."""

    def no_features(self) -> Float32:
        """Return no image tokens."""


class EngineOptions(TypedDict, total=False):
    """Keyword arguments of a `NativeEngine`."""

    lookup: int | None
    reuse: bool
    cache_salt: Salt
    progress: Progress | None
    wait_seconds: float | None


class NativeEngine:
    """Keeps the sequences of one batch in a `NativeSmolVLM`; see `faster_smolvlm.generation.loop.Engine`.

    `input_ids` and `attention_mask` are int64 [rows, length]; positions whose mask is 0 are left out. `pixel_values`
    [rows, frames, channels, height, width] and `pixel_attention_mask` [rows, frames, height, width] are a processor's;
    `features` [tokens, hidden_size] are pictures encoded before, instead of the pixels.
    `lookup` is how many draft tokens a greedy step takes at most from earlier text that repeats itself (None:
    `LOOKUP_TOKENS`); it changes no token. `reuse=False` neither reads nor fills a cache, and calls with
    different `cache_salt` share nothing of them. `progress(done, all)` is run
    after each frame and each step of the prefill and counts image tokens made and tokens read; an exception from it, or
    Ctrl-C, ends the call there.
    `cancellation.request()`, from any thread, ends it there too, with `CancelledCall`.
    `usages` has an entry for each prompt; `vision_seconds` and `prefill_seconds` are the durations of the two.
    The loop calls `reserve` first, which waits at most `wait_seconds` (None: as long as it takes) for pages of the
    key/value cache; without it, `prefill` waits for the pages of the prompts, and steps take those that are free.
    Raises ValueError for prompts that the model cannot read, CacheFullError for more than its cache holds.
    """

    def __init__(
        self,
        model: LoadedModel,
        input_ids: npt.ArrayLike,
        attention_mask: npt.ArrayLike | None = None,
        pixel_values: npt.ArrayLike | None = None,
        pixel_attention_mask: npt.ArrayLike | None = None,
        features: npt.ArrayLike | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        unknown = options.keys() - EngineOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"NativeEngine got unexpected keyword argument(s): {', '.join(sorted(unknown))}")
        self._model = model
        self.cancellation = Cancellation()
        lookup = options.get("lookup")
        self._lookup = LOOKUP_TOKENS if lookup is None else lookup
        self._reuse = options.get("reuse", True)
        self._salt = salt_key(options.get("cache_salt"))
        self._progress = options.get("progress")
        frames: list[Frame] = []
        if pixel_values is not None:
            frames = model.frames(pixel_values, pixel_attention_mask)
        elif features is not None:
            frames = [model.encoded(features)]
        self._prompts = PromptBatch(input_ids, attention_mask, frames, model.config.image_token_id)
        limit, wait = model.position_limit, options.get("wait_seconds")
        self._pages = CallPages(model.admission, self._prompts.lengths, limit, wait)
        self._check()
        # What the sequences hold; after `greedy` that may be more than the `_known` positions that the loop counts.
        self._units: list[list[Unit]] = []
        self._known: list[int] = []
        self._sequences: list[int] = []
        self.usages = [Usage(length) for length in self._prompts.lengths]
        self._done = self._todo = 0
        self.vision_seconds = 0.0
        self.prefill_seconds = 0.0

    @property
    def has_greedy(self) -> bool:
        """Always true."""
        return True

    @property
    def new_token_limits(self) -> list[int]:
        """How many tokens can follow each prompt; the last token of a row needs no position."""
        return [self._model.position_limit - length + 1 for length in self._prompts.lengths]

    def reserve(self, turn: Turn, copies: int, max_new_tokens: int) -> None:
        """Wait for the pages that `copies` answers to each prompt can take; `turn` says which thread works on them."""
        self._pages.take(self, self.cancellation, turn, copies, most_after(max_new_tokens, self._lookup))

    def prefill(self) -> Float32:
        """Encode what is unknown of the pictures and read what is unknown of the prompts: logits [rows, vocabulary]."""
        features, feature_rows, starts = self._open()
        start = time.perf_counter()
        prompts, ends = self._prompts.ids, self._prompts.lengths
        logits = np.empty((len(prompts), self._vocabulary), np.float32)
        for pieces in cut_into_steps(starts, ends, NativeModel.STEP_ROWS):
            finished = [row for row, _, end in pieces if end == ends[row]]
            lengths = [end - begin for _, begin, end in pieces]
            last = np.cumsum(lengths) - 1
            step = Step(
                [self._sequences[row] for row, _, _ in pieces],
                lengths,
                np.concatenate([prompts[row][begin:end] for row, begin, end in pieces]),
                features,
                np.concatenate([feature_rows[row][begin:end] for row, begin, end in pieces]),
                [int(last[i]) for i, (row, _, _) in enumerate(pieces) if row in finished],
            )
            logits[finished] = self._logits(step)
            self._advance(sum(lengths))
        self.prefill_seconds = time.perf_counter() - start
        self._known = [len(units) for units in self._units]
        return logits

    def step(self, tokens: npt.ArrayLike) -> Float32:
        """Append one token to each row; return the logits after it.

        Rows at the position limit are left as they are; their logits are 0.
        """
        ids = self._one_each(tokens)
        self._rewind()
        logits = np.zeros((len(ids), self._vocabulary), np.float32)
        rows = [row for row in range(len(ids)) if self._known[row] < self._model.position_limit]
        for begin in range(0, len(rows), NativeModel.STEP_ROWS):
            part = rows[begin : begin + NativeModel.STEP_ROWS]
            logits[part] = self._append(self._logits, part, [[int(ids[row])] for row in part])
        for row in rows:
            self._known[row] += 1
        return logits

    def greedy(self, tokens: npt.ArrayLike) -> Iterator[Int64]:
        """Append `tokens` and yield the likeliest tokens that follow, int64 [rows], one step after the other.

        The sequences may hold more than what was yielded; the next `step`, `select` or `greedy` goes back to it. A row
        at the position limit repeats its last token.
        """
        newest = self._one_each(tokens).tolist()
        self._rewind()
        ready: list[list[int]] = [[] for _ in newest]  # the next one last
        drafts = [PromptLookup(self._lookup, [*units, token]) for units, token in zip(self._units, newest, strict=True)]
        while True:
            empty = [row for row in range(len(newest)) if not ready[row]]
            for row, found in self._follow(empty, newest, drafts):
                ready[row] = found[::-1]
            newest = [row.pop() for row in ready]
            self._known = [min(known + 1, self._model.position_limit) for known in self._known]
            yield np.array(newest, np.int64)

    def _follow(
        self, rows: list[int], newest: list[int], drafts: list[PromptLookup]
    ) -> Iterator[tuple[int, list[int]]]:
        """For rows whose sequences end before `newest`: append it and the draft tokens; give what follows.

        A draft token is kept if it is the likeliest one after the token before it.
        """
        pieces: list[list[int]] = []
        taken: list[int] = []
        free = NativeModel.STEP_ROWS
        for row in rows:
            positions = self._model.position_limit - len(self._units[row])
            if positions == 0:
                yield row, [newest[row]]
                continue
            if free == 0:
                yield from self._verified(taken, pieces, drafts)
                taken, pieces, free = [], [], NativeModel.STEP_ROWS
            piece = [newest[row], *drafts[row].draft(min(positions, free) - 1)]
            taken.append(row)
            pieces.append(piece)
            free -= len(piece)
        yield from self._verified(taken, pieces, drafts)

    def _verified(
        self, rows: list[int], pieces: list[list[int]], drafts: list[PromptLookup]
    ) -> Iterator[tuple[int, list[int]]]:
        if not rows:
            return
        likeliest = self._append(self._likeliest, rows, pieces, every=True).tolist()
        for row, piece in zip(rows, pieces, strict=True):
            accepted = 1
            while accepted < len(piece) and piece[accepted] == likeliest[accepted - 1]:
                accepted += 1
            self._cut(row, len(self._units[row]) - len(piece) + accepted)
            drafts[row].learn(likeliest[:accepted], drafted=len(piece) - 1)
            yield row, likeliest[:accepted]
            likeliest = likeliest[len(piece) :]

    def _one_each(self, tokens: npt.ArrayLike) -> Int64:
        ids = np.asarray(tokens, dtype=np.int64)
        if ids.shape != (len(self._sequences),):
            raise ValueError(f"a step takes one token for each of {len(self._sequences)} rows, got {ids.shape}.")
        return ids

    def _append(
        self, take: Callable[[Step], ResultT], rows: list[int], pieces: list[list[int]], *, every: bool = False
    ) -> ResultT:
        """Append tokens to rows, in one step; return what `take` gives after the last token of each, or after every."""
        lengths = [len(piece) for piece in pieces]
        if not self._pages.are_planned:
            self._pages.take_more([len(units) for units in self._units], rows, lengths)
        ids = np.array([token for piece in pieces for token in piece], np.int64)
        outputs = np.arange(len(ids)) if every else np.cumsum(lengths) - 1
        sequences, text_only = [self._sequences[row] for row in rows], np.full(len(ids), -1, np.int64)
        found = take(Step(sequences, lengths, ids, self._model.no_features(), text_only, outputs.tolist()))
        for row, piece in zip(rows, pieces, strict=True):
            self._units[row] += piece
        return found

    def _rewind(self) -> None:
        """Go back to the positions that the loop counts."""
        for row, known in enumerate(self._known):
            self._cut(row, known)

    def _cut(self, row: int, length: int) -> None:
        if length < len(self._units[row]):
            self._model.rust.truncate(self._sequences[row], length)
            del self._units[row][length:]

    def select(self, rows: Sequence[int]) -> None:
        """Make the state that of these rows; what repeats shares its memory until it differs."""
        self._rewind()
        taken: set[int] = set()
        sequences = []
        for row in rows:
            if row in taken:
                sequences.append(self._model.rust.fork(self._sequences[row], len(self._units[row])))
            else:
                sequences.append(self._sequences[row])
            taken.add(row)
        dropped = [(self._sequences[row], self._units[row]) for row in set(range(len(self._sequences))) - taken]
        self._units = [list(self._units[row]) for row in rows]
        self._known = [self._known[row] for row in rows]
        self._sequences = sequences
        for sequence, units in dropped:
            self._finish(sequence, units)

    def free(self) -> None:
        """End the sequences; with `reuse` they are kept for later prompts that begin alike."""
        ended = list(zip(self._sequences, self._units, strict=False))
        self._sequences, self._units, self._known = [], [], []
        self._prompts.frames = []
        try:
            for sequence, units in ended:
                self._finish(sequence, units)
        finally:
            self._pages.give_back()

    def discard(self) -> None:
        """Close the sequences, which may be in any state; see `Holder`."""
        ended, self._sequences = self._sequences, []
        for sequence in ended:
            with suppress(ValueError):  # the lost thread was about to forget it
                self._model.rust.close(sequence)

    def all_logits(self) -> Float32:
        """Read the prompt of a batch of one from its start and return the logits of all positions."""
        features, feature_rows, _ = self._open()
        ids, parts = self._prompts.ids[0], []
        for begin in range(0, len(ids), NativeModel.STEP_ROWS):
            end = min(begin + NativeModel.STEP_ROWS, len(ids))
            rows, outputs = feature_rows[0][begin:end], list(range(end - begin))
            step = Step(self._sequences, [end - begin], ids[begin:end], features, rows, outputs)
            parts.append(self._logits(step))
        return np.concatenate(parts)

    def _open(self) -> tuple[Float32, list[Int64], list[int]]:
        """Open the sequences and encode the frames that they need.

        Returns the image tokens, for each prompt the row of them that each position takes (or -1), and how many
        positions of each prompt are known.
        """
        model, prompts = self._model, self._prompts
        if not self._pages.are_taken:
            self._pages.take(self, self.cancellation)
        self._units = prompts.units()
        starts = []
        for units in self._units:
            sequence, known = model.prefixes.start(units, self._salt) if self._reuse else (model.rust.open(), 0)
            self._sequences.append(sequence)
            starts.append(known)
        begin = time.perf_counter()
        tokens = prompts.frame_tokens
        needed = sorted(set().union(*prompts.frames_after(starts)))
        self._todo = sum(prompts.lengths) - sum(starts) + len(needed) * tokens
        features, known_frames = model.encode(
            [prompts.frames[i] for i in needed],
            reuse=self._reuse,
            salt=self._salt,
            done=lambda: self._advance(tokens),
        )
        encoded = {frame for frame, known in zip(needed, known_frames, strict=True) if not known}
        of_prompts = prompts.frames_after([0] * len(starts))
        self.usages = [
            replace(usage, prompt_tokens_reused=start, frames=len(frames), frames_reused=len(frames - encoded))
            for usage, frames, start in zip(self.usages, of_prompts, starts, strict=True)
        ]
        feature_rows = prompts.feature_rows(needed)
        self.vision_seconds = time.perf_counter() - begin
        return features, feature_rows, starts

    def _advance(self, count: int) -> None:
        self._done += count
        self.cancellation.check()
        if self._progress is not None:
            self._progress(self._done, self._todo)

    @property
    def _vocabulary(self) -> int:
        return self._model.config.text_config.vocab_size

    def _check(self) -> None:
        """Refuse prompts that the model cannot read, before anything is computed."""
        self._prompts.check(self._model.position_limit, self._vocabulary)
        self._pages.check(1, 0)
        self._prompts.check_frames()

    def _logits(self, step: Step) -> Float32:
        return self._retried(lambda: self._model.rust.step(step, False))

    def _likeliest(self, step: Step) -> Int64:
        return self._retried(lambda: self._model.rust.step(step, True))

    def _retried(self, take: Callable[[], ResultT]) -> ResultT:
        """Make one step; if the cache is full, forget what was kept for reuse and try again.

        Nothing may be kept because another thread forgot it at this moment: that is looked at again, too.
        """
        vain = 0
        while True:
            try:
                return take()
            except MemoryError:  # a try that fails is what this loop is for
                vain = 0 if self._model.prefixes.forget_one() else vain + 1
                if vain == _VAIN_TRIES:
                    raise

    def _finish(self, sequence: int, units: list[Unit]) -> None:
        rust = self._model.rust
        length = rust.length(sequence)
        if self._reuse and length > 0:
            self._model.prefixes.keep(units[:length], sequence, self._salt)
        else:
            rust.close(sequence)
