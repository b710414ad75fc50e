"""Beam search: several continuations of each prompt side by side, the likeliest sequences win."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from . import arrays
from .arrays import Array
from .config import GenerationConfig
from .logits import LogitsProcessor, applied
from .loop import EngineT, repeated
from .stopping import StopRules

_NEVER = -1.0e9  # added to the score of what must not be chosen; finite, so that it can be compared


@dataclass
class Beams:
    """Sequences side by side: `ids` [batch, n, capacity], `scores` [batch, n], `origins` [batch, n, new tokens]."""

    ids: Array
    scores: Array
    origins: Array

    def pick(self, index: Array) -> Beams:
        """The beams at `index` [batch, k] of each prompt."""
        batch = arrays.ids_like(index, range(index.shape[0]))[:, None]
        return Beams(self.ids[batch, index], self.scores[batch, index], self.origins[batch, index])


class BeamSearch(Generic[EngineT]):
    """One call with `num_beams` above 1. `run` makes its steps; then `ids` [rows, length] holds the best sequences.

    There are `num_return_sequences` rows for each prompt. `sequences_scores` [rows] are sums of log probabilities
    divided by length ** length_penalty; `beam_indices` [rows, new tokens] say which beam each token came from, -1 after
    the end.
    """

    def __init__(
        self,
        engine: EngineT,
        prompts: Array,
        *,
        max_new_tokens: int,
        pad_id: int | None,
        processors: Sequence[LogitsProcessor],
        generator: object,
        stop: StopRules,
        config: GenerationConfig,
    ) -> None:
        self.engine = engine
        self._prompts = prompts
        self._max_new_tokens = max_new_tokens
        self._fill = (pad_id or config.eos_ids[0]) if config.eos_ids else -1
        self._processors = processors
        self._generator = generator
        self._stop = stop
        self._config = config
        self._beams = config.num_beams or 1
        # Enough candidates to go on with if every beam ends with its likeliest tokens.
        self._candidates = max(2, 1 + len(config.eos_ids)) * self._beams
        collects = bool(config.return_dict_in_generate)
        self.scores: tuple[Array, ...] | None = () if collects and config.output_scores else None
        self.logits: tuple[Array, ...] | None = () if collects and config.output_logits else None
        self.ids: Array = prompts
        self.sequences_scores: Array = None
        self.beam_indices: Array = None

    def run(self) -> None:
        """Search until no running beam can win any more."""
        try:
            self._search()
        finally:
            self.engine.free()

    def _search(self) -> None:
        batch, prompt_length = self._prompts.shape
        logits = self.engine.prefill()
        self.engine.select(repeated(batch, self._beams))
        logits = arrays.float32(logits)[repeated(batch, self._beams)]
        running = self._empty(logits)
        running.scores[:, 0] = 0.0  # the copies of a prompt are the same: only the first may be continued
        best = self._empty(logits)
        finished = best.scores > 0
        undecided = finished[:, :1] == finished[:, :1]
        for length in range(prompt_length, prompt_length + self._max_new_tokens):
            found = self._continue(running, logits, length)
            hits = self._hits(found, length)
            going = Beams(found.ids, found.scores + hits * _NEVER, found.origins)
            running = going.pick(arrays.top_k(going.scores, self._beams)[1])
            best, finished = self._update(best, finished, found, hits, undecided, length + 1 - prompt_length)
            undecided = undecided & self._may_win(running, best, finished, length + 1 - prompt_length)
            full = bool(finished.all()) and self._config.early_stopping is True
            if full or bool(hits.all()) or not bool(undecided.any()):
                break
            self.engine.select(running.origins[:, :, length - prompt_length].reshape(-1).tolist())
            logits = arrays.float32(self.engine.step(running.ids[:, :, length].reshape(-1)))
        self._finish(best)

    def _empty(self, logits: Array) -> Beams:
        batch, prompt_length = self._prompts.shape
        ids = arrays.full_ids(self._prompts, (batch, self._beams, prompt_length + self._max_new_tokens), self._fill)
        ids[:, :, :prompt_length] = self._prompts[:, None]
        scores = arrays.copy(logits[:, 0].reshape(batch, self._beams)) * 0 + _NEVER
        return Beams(ids, scores, arrays.full_ids(self._prompts, (batch, self._beams, self._max_new_tokens), -1))

    def _continue(self, running: Beams, logits: Array, length: int) -> Beams:
        """Return the likeliest (or drawn) continuations by one token, best first."""
        batch, prompt_length = self._prompts.shape
        log_probs = arrays.log_softmax(logits)
        ids = running.ids[:, :, :length].reshape(batch * self._beams, length)
        for processor in self._processors:
            log_probs = applied(processor, ids, log_probs)
        if self.scores is not None:
            self.scores += (log_probs,)
        if self.logits is not None:
            self.logits += (logits,)
        vocabulary = log_probs.shape[-1]
        total = (log_probs.reshape(batch, self._beams, vocabulary) + running.scores[:, :, None]).reshape(batch, -1)
        ranking = total
        if self._config.do_sample:
            ranking = arrays.softmax(total) / arrays.exponential(total, batch, self._generator)
        positions = arrays.top_k(ranking, self._candidates)[1]
        beam = positions // vocabulary
        found = running.pick(beam)
        found.scores = arrays.take(total, positions)
        found.ids[:, :, length] = positions % vocabulary
        first_row = arrays.ids_like(beam, range(batch))[:, None] * self._beams
        found.origins[:, :, length - prompt_length] = beam + first_row
        return found

    def _hits(self, found: Beams, length: int) -> Array:
        """Which continuations [batch, candidates] are finished by a stop rule."""
        batch, prompt_length = self._prompts.shape
        ids = found.ids[:, :, : length + 1].reshape(batch * self._candidates, length + 1)
        rows = range(ids.shape[0])
        finished = self._stop(rows, ids[:, -1].tolist(), length + 1 - prompt_length, ids, self.scores)
        flags = arrays.ids_like(ids, [int(row in finished) for row in rows])
        return flags.reshape(batch, self._candidates) > 0

    def _update(
        self, best: Beams, finished: Array, found: Beams, hits: Array, undecided: Array, new_tokens: int
    ) -> tuple[Beams, Array]:
        """Merge the continuations that just finished into the best finished sequences."""
        ended = arrays.copy(hits)
        ended[:, self._beams :] = False  # the others are there only to go on with
        scores = found.scores / new_tokens ** (self._config.length_penalty or 0.0)
        full = finished.all(-1)[:, None] & (self._config.early_stopping is True)
        scores = scores + full * _NEVER
        scores = scores + ~undecided * _NEVER
        scores = scores + ~ended * _NEVER
        merged = Beams(
            arrays.concatenate([best.ids, found.ids], 1),
            arrays.concatenate([best.scores, scores], 1),
            arrays.concatenate([best.origins, found.origins], 1),
        )
        index = arrays.top_k(merged.scores, self._beams)[1]
        batch = arrays.ids_like(index, range(index.shape[0]))[:, None]
        return merged.pick(index), arrays.concatenate([finished, ended], 1)[batch, index]

    def _may_win(self, running: Beams, best: Beams, finished: Array, new_tokens: int) -> Array:
        """Whether the best running beam of each prompt [batch, 1] could still beat a finished one.

        Its length is taken to be that of now, or with early_stopping="never" the one that favours it most.
        """
        penalty = self._config.length_penalty or 0.0
        length = self._max_new_tokens if self._config.early_stopping == "never" and penalty > 0 else new_tokens
        worst = arrays.namespace(finished).where(finished, -arrays.row_max(-best.scores), _NEVER)
        return (running.scores[:, :1] / length**penalty > worst).any(-1)[:, None]

    def _finish(self, best: Beams) -> None:
        batch, prompt_length = self._prompts.shape
        rows = batch * (self._config.num_return_sequences or 1)
        returned = self._config.num_return_sequences or 1
        origins = best.origins[:, :returned].reshape(rows, -1)
        longest = int((origins >= 0).sum(-1).max())
        self.ids = best.ids[:, :returned].reshape(rows, -1)[:, : prompt_length + longest]
        self.beam_indices = origins[:, :longest]
        self.sequences_scores = best.scores[:, :returned].reshape(rows)
