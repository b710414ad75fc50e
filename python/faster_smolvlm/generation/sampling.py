"""From scores to the next token of each row: the most likely one, or one drawn at random."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..integers import as_int
from ..quoting import shown
from . import arrays
from .arrays import Array


class Sampler:
    """Picks one token a row.

    Drawing takes the argument of the largest p / e with e from the exponential distribution, which is how
    `torch.multinomial` draws one sample: the same seed gives the same tokens. Noise is drawn for all `rows` of the
    call at each step, so that what one row gets does not depend on when another one finished.
    """

    def __init__(self, do_sample: bool, rows: int, generator: object = None) -> None:
        self._do_sample = do_sample
        self._rows = rows
        self._generator = generator

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, the lowest of equals."""
        return not self._do_sample

    def __call__(self, scores: Array, rows: Sequence[int]) -> Array:
        """Return int64 [len(rows)] for float32 `scores` [len(rows), vocabulary], whose rows have the indices `rows` in
        the call.

        A negative token says that the scores were not numbers, or left none to draw: the caller passes what it reads
        to `check_drawn`, since looking here would make a GPU wait once more for each token.
        """
        if not self._do_sample:
            return scores.argmax(-1)
        noise = arrays.exponential(scores, self._rows, self._generator)
        if len(rows) != self._rows:
            noise = noise[list(rows)]
        probabilities = arrays.softmax(scores)
        usable = arrays.namespace(scores).isfinite(probabilities.sum(-1))
        return arrays.namespace(scores).where(usable, (probabilities / noise).argmax(-1), -1)


def check_drawn(tokens: Sequence[int]) -> None:
    """Raise ValueError if a `Sampler` could not draw one of `tokens`."""
    if min(tokens, default=0) < 0:
        raise ValueError(
            "cannot draw a token: the scores of a row hold NaN or infinity, or a logits processor left no token "
            "to choose. Check the processors, and the model's dtype."
        )


def make_generator(like: Array, seed: int | None, generator: object) -> object:
    """Return the source of randomness for scores of the kind of `like`.

    `generator` is taken as it is; `seed` starts a new one; with neither, torch's global generator serves tensors and
    a freshly seeded one serves NumPy arrays. Raises ValueError for a seed that is negative or no integer.
    """
    if generator is not None and seed is not None:
        raise ValueError("pass either seed or generator, not both")
    if generator is not None:
        return generator
    if seed is not None:
        seed = _checked_seed(seed, 2**64 if arrays.is_torch(like) else math.inf)
    if not arrays.is_torch(like):
        return np.random.default_rng(seed)
    if seed is None:
        return None
    generator = arrays.namespace(like).Generator(device=like.device).manual_seed(seed)
    return generator


def _checked_seed(seed: object, end: float) -> int:
    found = as_int(seed)
    if found is None or not 0 <= found < end:
        raise ValueError(
            f"`seed` has to be an integer of at least 0{'' if end == math.inf else ' and below 2**64'}, but is "
            f"{shown(seed)}. For other numbers each time, leave it out."
        )
    return found
