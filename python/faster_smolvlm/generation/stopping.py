"""When a row is finished: an end-of-sequence token, a stop string, its length, the time, or a caller's criterion."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from ..quoting import shown
from ..text.well_formed import check_text
from .arrays import Array
from .config import GenerationConfig
from .token_bytes import TokenBytes

FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "error"]
StoppingCriterion: TypeAlias = Callable[..., object]


class StopStrings:
    """Finds stop strings across token borders by the bytes of the last few tokens; nothing is decoded.

    As in Transformers, a string counts when it ends inside the newest token, even if it began in the prompt.
    """

    def __init__(self, strings: Sequence[str], tokens: TokenBytes) -> None:
        if not strings or not all(isinstance(string, str) and string for string in strings):
            raise ValueError(f"`stop_strings` has to be a non-empty string or a list of them, but is {shown(strings)}.")
        for number, string in enumerate(strings):
            check_text(string, f"`stop_strings`, entry {number},")
        self._strings = [string.encode() for string in strings]
        self._tokens = tokens
        self.longest = max(map(len, self._strings))
        """How many tokens at the end can matter: one for each byte of the longest string."""

    def end(self, ids: Sequence[int]) -> bool:
        """Whether a stop string ends inside the last of `ids`, the last `longest` tokens of a row or more."""
        before = b"".join(self._tokens[token] for token in ids[-self.longest : -1])
        text = before + self._tokens[ids[-1]]
        return any(text.find(string, max(0, len(before) - len(string) + 1)) >= 0 for string in self._strings)


class StopRules:
    """All the rules of one call. Finished rows stay finished; the loop asks only about tokens that count."""

    def __init__(
        self,
        *,
        eos_ids: Sequence[int],
        max_new_tokens: int,
        strings: StopStrings | None = None,
        max_time: float | None = None,
        criteria: Sequence[StoppingCriterion] = (),
        row_limits: Sequence[int] | None = None,
    ) -> None:
        self._row_limits = row_limits
        self._eos_ids = frozenset(eos_ids)
        self._max_new_tokens = max_new_tokens
        self._strings = strings
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self._criteria = list(criteria)

    def __call__(
        self, rows: Sequence[int], tokens: Sequence[int], new_tokens: int, ids: Array, scores: tuple[Array, ...] | None
    ) -> dict[int, FinishReason]:
        """Return the rows that are finished now, with the reason.

        `tokens` are the newest tokens of `rows`; `new_tokens` counts them in; `ids` [all rows, length] is what
        criteria of the caller see, with the `scores` of all steps if those are collected.
        """
        finished: dict[int, FinishReason] = {}
        for row, token in zip(rows, tokens, strict=True):
            if token in self._eos_ids:
                finished[row] = "stop"
        if self._strings is not None:
            for row, tail in enumerate(ids[:, -self._strings.longest :].tolist()):
                if row in rows and self._strings.end(tail):
                    finished[row] = "stop"
        for criterion in self._criteria:
            done = criterion(ids, scores)
            flags = done.reshape(-1).tolist() if hasattr(done, "reshape") else [bool(done)]
            if len(flags) not in (1, ids.shape[0]):
                raise ValueError(
                    f"a stopping criterion has to return one bool, or one for each of the {ids.shape[0]} rows; "
                    f"{type(criterion).__name__} returned {len(flags)}"
                )
            if len(flags) == 1:
                flags = flags * ids.shape[0]
            finished.update({row: "stop" for row in rows if flags[row]})
        if self._row_limits is not None:
            full: dict[int, FinishReason] = {row: "length" for row in rows if new_tokens >= self._row_limits[row]}
            finished = full | finished
        if new_tokens >= self._max_new_tokens or (self._deadline is not None and time.monotonic() > self._deadline):
            finished = {row: finished.get(row, "length") for row in rows}
        return finished


def build_stop_rules(
    config: GenerationConfig,
    *,
    max_new_tokens: int,
    tokenizer: object = None,
    criteria: Sequence[StoppingCriterion] = (),
    row_limits: Sequence[int] | None = None,
) -> StopRules:
    """Return the rules that `config` asks for; `row_limits` are the numbers of new tokens that the rows can take.

    Raises ValueError for stop strings without a tokenizer.
    """
    strings = None
    if config.stop_strings is not None:
        if tokenizer is None:
            raise ValueError(
                "stop_strings need the tokenizer, to know which text the tokens are: pass tokenizer=processor.tokenizer"
            )
        given = [config.stop_strings] if isinstance(config.stop_strings, str) else list(config.stop_strings)
        strings = StopStrings(given, TokenBytes(tokenizer))
    return StopRules(
        eos_ids=config.eos_ids,
        max_new_tokens=max_new_tokens,
        strings=strings,
        max_time=config.max_time,
        criteria=criteria,
        row_limits=row_limits,
    )
