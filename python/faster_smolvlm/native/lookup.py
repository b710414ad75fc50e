"""Draft tokens from what the text contained before (prompt lookup); greedy decoding verifies them in one step."""

from __future__ import annotations

from collections.abc import Sequence

from .reuse import Unit

LOOKUP_TOKENS = 0
"""How many draft tokens are taken at once by default, at most."""
_GRAMS = (3, 2)
"""How many tokens have to agree, the first choice first."""


class PromptLookup:
    """Draft tokens for one sequence that begins with `units`: what followed the same last tokens before.

    At most `limit` tokens are drafted at once; wrong ones make the next draft shorter, right ones longer.
    """

    def __init__(self, limit: int, units: Sequence[Unit]) -> None:
        self._limit = self._size = limit
        self._units: list[Unit] = []
        self._following: dict[tuple[Unit, ...], int] = {}  # the index after the last occurrence of each gram
        if limit:
            self._extend(units)

    def draft(self, limit: int) -> list[int]:
        """Return tokens that may follow, at most `limit`; none if nothing like the end was there before."""
        if not self._limit or limit < 1:
            return []
        for count in _GRAMS:
            start = self._following.get(tuple(self._units[-count:]))
            if start is not None:
                found: list[int] = []
                for unit in self._units[start : start + min(self._size, limit)]:
                    if not isinstance(unit, int):  # a picture is never generated
                        break
                    found.append(unit)
                return found
        return []

    def learn(self, tokens: Sequence[int], *, drafted: int) -> None:
        """Append the tokens that followed after `drafted` draft tokens: all but the last one were drafted rightly."""
        if not self._limit:
            return
        if drafted:
            right = len(tokens) - 1
            self._size = min(self._limit, 2 * self._size) if right == drafted else max(1, right)
        self._extend(tokens)

    def _extend(self, units: Sequence[Unit]) -> None:
        for unit in units:
            # The grams that end here are entered once something follows: the end must not find itself.
            for count in _GRAMS:
                if len(self._units) >= count:
                    self._following[tuple(self._units[-count:])] = len(self._units)
            self._units.append(unit)
