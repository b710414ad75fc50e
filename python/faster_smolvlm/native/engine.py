"""The native model in the generation loop: one batch of prompts, NumPy in and out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._rust import NativeModel
from .lookup import LOOKUP_TOKENS, PromptLookup
from .model import Float32, Frame, Int64, NativeSmolVLM
from .reuse import Unit


@dataclass
class Usage:
    """What a prompt asks for, and what of it was known: tokens (padding left out) and frames of its pictures.

    A frame counts as reused when its tokens lay in a known prefix or were known by its content.
    """

    prompt_tokens: int = 0
    prompt_tokens_reused: int = 0
    frames: int = 0
    frames_reused: int = 0


class NativeEngine:
    """Keeps the sequences of one batch in a `NativeSmolVLM`; see `faster_smolvlm.generation.loop.Engine`.

    `input_ids` and `attention_mask` are int64 [rows, length]; positions whose mask is 0 are left out. `pixel_values`
    [rows, frames, channels, height, width] and `pixel_attention_mask` [rows, frames, height, width] are a processor's;
    `features` [tokens, hidden_size] are pictures encoded before, in their place.
    `lookup` is the most tokens that a greedy step guesses ahead where the text repeats itself; it changes no token.
    `reuse=False` neither reads nor fills a cache. `progress(done, all)` is called after each frame and each step of the
    prefill and counts image tokens made and tokens read; an exception from it, or Ctrl-C, ends the call there. `usages`
    has an entry for each prompt; `vision_seconds` and `prefill_seconds` are what the two took.
    """

    def __init__(
        self,
        model: NativeSmolVLM,
        input_ids: Any,
        attention_mask: Any = None,
        pixel_values: Any = None,
        pixel_attention_mask: Any = None,
        features: Any = None,
        *,
        lookup: int = LOOKUP_TOKENS,
        reuse: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._model = model
        self._lookup = lookup
        self._reuse = reuse
        self._progress = progress
        self._prompts = _prompts(input_ids, attention_mask)
        self._frames: list[Frame] = []
        if pixel_values is not None:
            self._frames = model.frames(pixel_values, pixel_attention_mask)
        elif features is not None:
            self._frames = [model.encoded(features)]
        self._check()
        # What the sequences hold; after `greedy` they may be ahead of the `_known` positions that the loop counts.
        self._units: list[list[Unit]] = []
        self._known: list[int] = []
        self._sequences: list[int] = []
        self.usages = [Usage(prompt_tokens=len(ids)) for ids in self._prompts]
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
        return [self._model.position_limit - len(ids) + 1 for ids in self._prompts]

    def prefill(self) -> Float32:
        """Encode what is unknown of the pictures and read what is unknown of the prompts: logits [rows, vocabulary]."""
        features, rows, starts = self._open()
        start = time.perf_counter()
        logits = np.empty((len(self._prompts), self._model.config.text_config.vocab_size), np.float32)
        for pieces in _steps(starts, [len(ids) for ids in self._prompts], NativeModel.STEP_ROWS):
            finished = [row for row, _, end in pieces if end == len(self._prompts[row])]
            lengths = [end - begin for _, begin, end in pieces]
            ends = np.cumsum(lengths) - 1
            found = self._call(
                self._model.rust.step_logits,
                [self._sequences[row] for row, _, _ in pieces],
                lengths,
                np.concatenate([self._prompts[row][begin:end] for row, begin, end in pieces]),
                features,
                np.concatenate([rows[row][begin:end] for row, begin, end in pieces]),
                [int(ends[i]) for i, (row, _, _) in enumerate(pieces) if row in finished],
            )
            logits[finished] = found
            self._advance(sum(lengths))
        self.prefill_seconds = time.perf_counter() - start
        self._known = [len(units) for units in self._units]
        return logits

    def step(self, tokens: Any) -> Float32:
        """Append one token to each row; return the logits after it.

        Rows at the position limit are left as they are; their logits are 0.
        """
        ids = self._one_each(tokens)
        self._rewind()
        logits = np.zeros((len(ids), self._model.config.text_config.vocab_size), np.float32)
        rows = [row for row in range(len(ids)) if self._known[row] < self._model.position_limit]
        for begin in range(0, len(rows), NativeModel.STEP_ROWS):
            part = rows[begin : begin + NativeModel.STEP_ROWS]
            logits[part] = self._append(self._model.rust.step_logits, part, [[int(ids[row])] for row in part])
        for row in rows:
            self._known[row] += 1
        return logits

    def greedy(self, tokens: Any) -> Iterator[Int64]:
        """Append `tokens` and yield the likeliest tokens that follow, int64 [rows], one step after the other.

        The sequences may run ahead of what was yielded; the next `step`, `select` or `greedy` goes back to it. A row at
        the position limit repeats its last token.
        """
        newest = self._one_each(tokens).tolist()
        self._rewind()
        ready: list[list[int]] = [[] for _ in newest]  # the next one last
        drafts = [PromptLookup(self._lookup, [*units, token]) for units, token in zip(self._units, newest, strict=True)]
        while True:
            hungry = [row for row in range(len(newest)) if not ready[row]]
            for row, found in self._guess(hungry, newest, drafts):
                ready[row] = found[::-1]
            newest = [row.pop() for row in ready]
            self._known = [min(known + 1, self._model.position_limit) for known in self._known]
            yield np.array(newest, np.int64)

    def _guess(self, rows: list[int], newest: list[int], drafts: list[PromptLookup]) -> Iterator[tuple[int, list[int]]]:
        """For rows whose sequences end before `newest`: append it, and what of the guesses is right; give what follows.

        A guess is right where it is what the model says after the token before it.
        """
        pieces: list[list[int]] = []
        taken: list[int] = []
        room = NativeModel.STEP_ROWS
        for row in rows:
            free = self._model.position_limit - len(self._units[row])
            if free == 0:
                yield row, [newest[row]]
                continue
            if room == 0:
                yield from self._verified(taken, pieces, drafts)
                taken, pieces, room = [], [], NativeModel.STEP_ROWS
            piece = [newest[row], *drafts[row].guess(min(free, room) - 1)]
            taken.append(row)
            pieces.append(piece)
            room -= len(piece)
        yield from self._verified(taken, pieces, drafts)

    def _verified(
        self, rows: list[int], pieces: list[list[int]], drafts: list[PromptLookup]
    ) -> Iterator[tuple[int, list[int]]]:
        if not rows:
            return
        said = self._append(self._model.rust.step_argmax, rows, pieces, every=True).tolist()
        for row, piece in zip(rows, pieces, strict=True):
            right = 1
            while right < len(piece) and piece[right] == said[right - 1]:
                right += 1
            self._cut(row, len(self._units[row]) - len(piece) + right)
            drafts[row].learn(said[:right], guessed=len(piece) - 1)
            yield row, said[:right]
            said = said[len(piece) :]

    def _one_each(self, tokens: Any) -> Int64:
        ids = np.asarray(tokens, dtype=np.int64)
        if ids.shape != (len(self._sequences),):
            raise ValueError(f"a step takes one token for each of {len(self._sequences)} rows, got {ids.shape}.")
        return ids

    def _append(self, step: Any, rows: list[int], pieces: list[list[int]], *, every: bool = False) -> Any:
        """Append tokens to rows, in one step; return what `step` gives after the last token of each, or after every."""
        lengths = [len(piece) for piece in pieces]
        ids = np.array([token for piece in pieces for token in piece], np.int64)
        wanted = np.arange(len(ids)) if every else np.cumsum(lengths) - 1
        none, places = self._model.no_features(), np.full(len(ids), -1, np.int64)
        found = self._call(step, [self._sequences[row] for row in rows], lengths, ids, none, places, wanted.tolist())
        for row, piece in zip(rows, pieces, strict=True):
            self._units[row] += piece
        return found

    def _rewind(self) -> None:
        """Go back to what the loop knows."""
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
        for row in set(range(len(self._sequences))) - taken:
            self._finish(row)
        self._units = [list(self._units[row]) for row in rows]
        self._known = [self._known[row] for row in rows]
        self._sequences = sequences

    def free(self) -> None:
        """End the sequences; with `reuse` they are kept for later prompts that begin alike."""
        for row in range(len(self._sequences)):
            self._finish(row)
        self._sequences, self._units, self._known, self._frames = [], [], [], []

    def all_logits(self) -> Float32:
        """Read the prompt of a batch of one from its start and return the logits of all positions."""
        features, rows, _ = self._open()
        ids, parts = self._prompts[0], []
        for begin in range(0, len(ids), NativeModel.STEP_ROWS):
            end = min(begin + NativeModel.STEP_ROWS, len(ids))
            wanted = list(range(end - begin))
            parts.append(
                self._call(
                    self._model.rust.step_logits,
                    self._sequences,
                    [end - begin],
                    ids[begin:end],
                    features,
                    rows[0][begin:end],
                    wanted,
                )
            )
        return np.concatenate(parts)

    def _open(self) -> tuple[Float32, list[Int64], list[int]]:
        """Open the sequences and encode the frames that they need.

        Returns the image tokens, for each prompt which of them takes the place of each position (or -1), and how many
        positions of each prompt are known.
        """
        model, places = self._model, self._image_places()
        self._units = [_units(ids, place, self._frames, self._frame_tokens()) for ids, place in self._zip(places)]
        starts = []
        for units in self._units:
            sequence, known = model.prefixes.start(units) if self._reuse else (model.rust.open(), 0)
            self._sequences.append(sequence)
            starts.append(known)
        begin = time.perf_counter()
        tokens = self._frame_tokens()
        unread = np.concatenate([place[known:] for place, known in zip(places, starts, strict=True)])
        # Not `np.unique`: its first call imports what takes as long as a short prompt.
        needed = sorted(set((unread[unread >= 0] // tokens).tolist()))
        self._todo = len(unread) + len(needed) * tokens
        features, found_frames = model.encode(
            [self._frames[i] for i in needed], reuse=self._reuse, done=lambda: self._advance(tokens)
        )
        encoded = {int(frame) for frame, found in zip(needed, found_frames, strict=True) if not found}
        for usage, place, start in zip(self.usages, places, starts, strict=True):
            frames = set((place[place >= 0] // tokens).tolist())
            usage.prompt_tokens_reused = start
            usage.frames, usage.frames_reused = len(frames), len(frames - encoded)
        row_of_frame = np.full(len(self._frames) + 1, -1, np.int64)
        row_of_frame[needed] = np.arange(len(needed)) * tokens
        rows = [np.where(place >= 0, row_of_frame[place // tokens] + place % tokens, -1) for place in places]
        self.vision_seconds = time.perf_counter() - begin
        return features, rows, starts

    def _advance(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._todo)

    def _zip(self, places: list[Int64]) -> Iterator[tuple[Int64, Int64]]:
        return zip(self._prompts, places, strict=True)

    def _frame_tokens(self) -> int:
        return self._frames[0].tokens if self._frames else 1

    def _image_places(self) -> list[Int64]:
        """Return for each position of each prompt which image token of the batch it takes, or -1."""
        places, count = [], 0
        for ids in self._prompts:
            image = ids == self._model.config.image_token_id
            if not self._frames:
                image = np.zeros_like(image)
            places.append(np.where(image, count + np.cumsum(image) - 1, -1))
            count += int(image.sum())
        return places

    def _check(self) -> None:
        """Refuse prompts that the model cannot read, before anything is computed."""
        limit = self._model.position_limit
        vocabulary = self._model.config.text_config.vocab_size
        for row, ids in enumerate(self._prompts):
            if not 0 < len(ids) <= limit:
                raise ValueError(f"Prompt {row} has {len(ids)} tokens; 1 to {limit} are possible with this model.")
            if ids.min() < 0 or ids.max() >= vocabulary:
                bad = next(int(token) for token in ids if not 0 <= token < vocabulary)
                raise ValueError(f"Prompt {row} holds the token id {bad}; the vocabulary has {vocabulary} tokens.")
        _, pages, size = self._model.rust.cache_pages()
        needed = sum(-(-len(ids) // size) for ids in self._prompts)
        if needed > pages:
            raise MemoryError(
                f"The prompts take {needed * size} positions of the key/value cache, which holds {pages * size}: "
                "ask about fewer at once, or load with a larger cache_positions."
            )
        if self._frames:
            places = sum(int((ids == self._model.config.image_token_id).sum()) for ids in self._prompts)
            features = len(self._frames) * self._frame_tokens()
            if places != features:
                raise ValueError(
                    f"Image features and image tokens do not match, tokens: {places}, features: {features}"
                )

    def _call(
        self,
        step: Any,
        sequences: list[int],
        lengths: list[int],
        ids: Int64,
        features: Float32,
        rows: Int64,
        wanted: list[int],
    ) -> Any:
        """Make one step; where the cache is full, forget what was kept for reuse and try again."""
        while True:
            try:
                return step(sequences, lengths, ids, features, rows, wanted)
            except MemoryError:  # a try that fails is what this loop is for
                if not self._model.prefixes.make_room():
                    raise

    def _finish(self, row: int) -> None:
        rust, sequence = self._model.rust, self._sequences[row]
        length = rust.length(sequence)
        if self._reuse and length > 0:
            self._model.prefixes.keep(self._units[row][:length], sequence)
        else:
            rust.close(sequence)


def _prompts(input_ids: Any, attention_mask: Any) -> list[Int64]:
    """Return the ids of each row without its padding."""
    ids = np.asarray(input_ids)
    if ids.ndim != 2 or ids.shape[0] == 0 or ids.dtype.kind not in "iu":
        raise ValueError(f"input_ids has to hold integers in the shape (rows, length), got {ids.dtype} {ids.shape}.")
    ids = ids.astype(np.int64, copy=False)
    if attention_mask is None:
        return list(ids)
    mask = np.asarray(attention_mask)
    if mask.shape != ids.shape:
        raise ValueError(f"attention_mask has to be of shape {ids.shape}, as the prompts, got {mask.shape}.")
    return [row[keep != 0] for row, keep in zip(ids, mask, strict=True)]


def _units(ids: Int64, places: Int64, frames: Sequence[Frame], tokens: int) -> list[Unit]:
    return [
        (frames[place // tokens].digest, place % tokens) if place >= 0 else token
        for token, place in zip(ids.tolist(), places.tolist(), strict=True)
    ]


def _steps(starts: Sequence[int], ends: Sequence[int], most: int) -> Iterator[list[tuple[int, int, int]]]:
    """Cut prompts into steps of at most `most` tokens: lists of (row, begin, end), several rows to a step."""
    pieces: list[tuple[int, int, int]] = []
    room = most
    for row, (begin, end) in enumerate(zip(starts, ends, strict=True)):
        while begin < end:
            size = min(room, end - begin)
            pieces.append((row, begin, begin + size))
            begin, room = begin + size, room - size
            if room == 0:
                yield pieces
                pieces, room = [], most
    if pieces:
        yield pieces
