"""Logits processors: each takes the token ids so far and the scores of the next token, and returns new scores.

Names and arithmetic are those of Transformers, so that a sampled sequence is the same for the same seed; each is
written once for NumPy and torch. `ids` is int64 [rows, length], `scores` is float32 [rows, vocabulary]; the scores
given are left as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..integers import as_float, as_int
from ..quoting import quoted, shown
from . import arrays
from .arrays import Array
from .config import GenerationConfig

LogitsProcessor: TypeAlias = Callable[[Array, Array], Array]


def _positive(name: str, value: object) -> float:
    found = as_float(value)
    if found is None or not 0 < found < math.inf:
        hint = " For greedy decoding set do_sample=False." if name == "temperature" and found == 0 else ""
        raise ValueError(f"`{name}` has to be a strictly positive float, but is {shown(value)}.{hint}")
    return found


def _positive_int(name: str, value: object) -> int:
    found = as_int(value)
    if found is None or found <= 0:
        raise ValueError(f"`{name}` has to be a strictly positive integer, but is {shown(value)}.")
    return found


def _fraction(name: str, value: object) -> float:
    found = as_float(value)
    if found is None or not 0 <= found <= 1:
        raise ValueError(f"`{name}` has to be a number between 0 and 1, but is {shown(value)}.")
    return found


def _remove(scores: Array, removed: Array) -> Array:
    return arrays.namespace(scores).where(removed, -math.inf, scores)


class TemperatureLogitsWarper:
    """Divide the scores by `temperature`."""

    def __init__(self, temperature: float) -> None:
        self.temperature = _positive("temperature", temperature)

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        return scores / self.temperature


class TopKLogitsWarper:
    """Keep the `top_k` highest scores of a row, and what ties with the last of them."""

    def __init__(self, top_k: int, min_tokens_to_keep: int = 1) -> None:
        self.top_k = max(_positive_int("top_k", top_k), min_tokens_to_keep)

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        k = min(self.top_k, scores.shape[-1])
        return _remove(scores, scores < arrays.kth_largest(scores, k))


class TopPLogitsWarper:
    """Keep the smallest set of most probable tokens whose probabilities reach `top_p`."""

    def __init__(self, top_p: float, min_tokens_to_keep: int = 1) -> None:
        self.top_p = _fraction("top_p", top_p)
        self.min_tokens_to_keep = min_tokens_to_keep

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        left = int((scores > -math.inf).sum(-1).max())
        if 4 * left < scores.shape[-1]:  # what top-k left over: no need to sort a whole vocabulary
            falling, order = arrays.top_k(scores, max(left, 1))
            rising, order = arrays.flip(falling), arrays.flip(order)
        else:
            rising, order = arrays.sort(scores)
        remove = arrays.softmax(rising).cumsum(-1) <= 1 - self.top_p
        remove[..., -self.min_tokens_to_keep :] = False
        return _remove(scores, arrays.put(scores > math.inf, order, remove))


class MinPLogitsWarper:
    """Keep the tokens at least `min_p` times as probable as the most probable one."""

    def __init__(self, min_p: float, min_tokens_to_keep: int = 1) -> None:
        self.min_p = _fraction("min_p", min_p)
        self.min_tokens_to_keep = min_tokens_to_keep

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        probabilities = arrays.softmax(scores)
        remove = probabilities < self.min_p * arrays.row_max(probabilities)
        if self.min_tokens_to_keep == 1:  # the most probable one stays anyway
            return _remove(scores, remove)
        kept = arrays.top_k(probabilities, min(self.min_tokens_to_keep, scores.shape[-1]))[1]
        return _remove(scores, arrays.put(remove, kept, kept < 0))


class RepetitionPenaltyLogitsProcessor:
    """Make each token of the prompt and of the answer less likely by the factor `penalty` (more likely if it is
    below 1).

    `prompt_ignore_length` holds for each row how many tokens at its start are padding and do not count.
    """

    def __init__(self, penalty: float, prompt_ignore_length: Sequence[int] | None = None) -> None:
        self.penalty = _positive("repetition_penalty", penalty)
        self.prompt_ignore_length = prompt_ignore_length

    def select(self, rows: Sequence[int]) -> None:
        """Follow the loop, which goes on with these rows only."""
        if self.prompt_ignore_length is not None:
            self.prompt_ignore_length = [self.prompt_ignore_length[row] for row in rows]

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        if ids.shape[1] == 0:
            return scores
        xp = arrays.namespace(scores)
        vocabulary = scores.shape[-1]
        seen = xp.clip(ids, max=vocabulary)  # ids that the head cannot produce fall into a spare column
        if self.prompt_ignore_length is not None:
            ignored = arrays.ids_like(ids, self.prompt_ignore_length)
            seen = xp.where(arrays.ids_like(ids, range(ids.shape[1])) < ignored[:, None], vocabulary, seen)
        padded = arrays.concatenate([scores, scores[:, :1]], 1)
        picked = arrays.take(padded, seen)
        picked = xp.where(picked < 0, picked * self.penalty, picked / self.penalty)
        return arrays.put(padded, seen, picked)[:, :vocabulary]


class NoRepeatNGramLogitsProcessor:
    """Forbid the tokens that would complete an n-gram for a second time."""

    def __init__(self, ngram_size: int) -> None:
        self.ngram_size = _positive_int("no_repeat_ngram_size", ngram_size)

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        n, length, vocabulary = self.ngram_size, ids.shape[1], scores.shape[-1]
        if length < n:
            return scores
        xp = arrays.namespace(scores)
        last = ids[:, n - 1 :]  # the token that ended each n-gram so far
        same = last == last
        for offset in range(n - 1):
            same = same & (ids[:, offset : length - n + 1 + offset] == ids[:, length - n + 1 + offset, None])
        banned = arrays.copy(scores[:, :1]) * 0 != 0  # [rows, 1] of False; one spare column takes what does not match
        banned = arrays.concatenate([scores != scores, banned], 1)
        banned = arrays.put(banned, xp.where(same, xp.clip(last, max=vocabulary), vocabulary), last == last)
        return _remove(scores, banned[:, :vocabulary])


class SuppressTokensLogitsProcessor:
    """Forbid these tokens; an id outside the vocabulary forbids nothing."""

    def __init__(self, suppress_tokens: Sequence[int]) -> None:
        self.suppress_tokens = list(suppress_tokens)

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        scores = arrays.copy(scores)
        scores[:, [token for token in self.suppress_tokens if 0 <= token < scores.shape[1]]] = -math.inf
        return scores


class SuppressTokensAtBeginLogitsProcessor(SuppressTokensLogitsProcessor):
    """Forbid these tokens as the first of the answer, which follows `begin_index` tokens of the prompt."""

    def __init__(self, begin_suppress_tokens: Sequence[int], begin_index: int) -> None:
        super().__init__(begin_suppress_tokens)
        self.begin_index = begin_index

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        return super().__call__(ids, scores) if ids.shape[1] == self.begin_index else scores


class NoBadWordsLogitsProcessor:
    """Forbid the token that would complete one of `bad_words_ids`, in the prompt or in the answer.

    An end-of-sequence token alone is no bad word. The first call raises ValueError for an id outside the vocabulary.
    """

    def __init__(self, bad_words_ids: Sequence[Sequence[int]], eos_token_id: Sequence[int] = ()) -> None:
        words = [list(word) for word in bad_words_ids if len(word) != 1 or word[0] not in eos_token_id]
        self.tokens = [word[0] for word in words if len(word) == 1]
        self.sequences = [(word[:-1], word[-1]) for word in words if len(word) > 1]
        self.longest = max((len(before) for before, _ in self.sequences), default=0)
        self.all_tokens = sorted({token for word in words for token in word})

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        vocabulary = scores.shape[1]
        outside = [token for token in self.all_tokens[-8:] if token >= vocabulary]
        if outside:
            raise ValueError(f"`bad_words_ids` holds {shown(outside)}, but the vocabulary has {vocabulary} tokens.")
        scores = scores + 0.0  # a copy
        scores[:, self.tokens] += -math.inf  # a sum, as in Transformers: NaN stays what it is
        if self.sequences:
            for row, tail in enumerate(ids[:, max(ids.shape[1] - self.longest, 0) :].tolist()):
                completed = [last for before, last in self.sequences if tail[-len(before) :] == before]
                scores[row, completed] += -math.inf
        return scores


class MinNewTokensLengthLogitsProcessor:
    """Forbid the end-of-sequence tokens until `min_new_tokens` tokens were generated."""

    def __init__(self, prompt_length_to_skip: int, min_new_tokens: int, eos_token_id: Sequence[int]) -> None:
        self.until = prompt_length_to_skip + min_new_tokens
        self.eos_token_id = list(eos_token_id)

    def __call__(self, ids: Array, scores: Array) -> Array:
        """Return the new scores."""
        if ids.shape[1] >= self.until:
            return scores
        scores = arrays.copy(scores)
        scores[:, [token for token in self.eos_token_id if 0 <= token < scores.shape[1]]] = -math.inf
        return scores


def applied(processor: LogitsProcessor, ids: Array, scores: Array) -> Array:
    """Return the scores after one processor. Raises ValueError, which names it, if what it returns are no scores."""
    found = processor(ids, scores)
    shape = getattr(found, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != scores.shape[0] or type(found) is not type(scores):
        name = getattr(processor, "__name__", None) or type(processor).__name__
        raise ValueError(
            f"logits_processor: {quoted(name)} has to return the scores, a {type(scores).__name__} of shape "
            f"{tuple(scores.shape)}, but returned {shown(found)}."
        )
    return found


def build_processors(
    config: GenerationConfig,
    *,
    prompt_length: int,
    padding: Sequence[int] | None,
    custom: Sequence[LogitsProcessor] = (),
) -> list[LogitsProcessor]:
    """Return the processors that `config` asks for, in the order in which Transformers applies them.

    `padding` holds the number of padding tokens at the start of each row. A `custom` processor replaces the one of
    the same class name made here from an argument; the others come after those that limit and before those that shape
    the distribution.
    """
    made: list[LogitsProcessor] = []
    if config.repetition_penalty not in (None, 1.0):
        made.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty, padding))
    if config.no_repeat_ngram_size:
        made.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.bad_words_ids:
        made.append(NoBadWordsLogitsProcessor(config.bad_words_ids, config.eos_ids))
    if config.min_new_tokens and config.eos_ids:
        made.append(MinNewTokensLengthLogitsProcessor(prompt_length, config.min_new_tokens, config.eos_ids))
    if config.suppress_tokens:
        made.append(SuppressTokensLogitsProcessor(config.suppress_tokens))
    if config.begin_suppress_tokens:
        made.append(SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, prompt_length))
    replaced = {type(processor).__name__ for processor in custom}
    made = [processor for processor in made if type(processor).__name__ not in replaced]
    made.extend(custom)
    if config.do_sample:
        # Beam search goes on with the beams that did not end, so it needs more tokens than there are ways to end.
        kept = 1 if (config.num_beams or 1) == 1 else max(2, len(config.eos_ids) + 1)
        if config.temperature not in (None, 1.0):
            made.append(TemperatureLogitsWarper(config.temperature))
        if config.top_k:
            made.append(TopKLogitsWarper(config.top_k, kept))
        if config.top_p is not None and config.top_p != 1.0:
            made.append(TopPLogitsWarper(config.top_p, kept))
        if config.min_p is not None:
            made.append(MinPLogitsWarper(config.min_p, kept))
    return made
