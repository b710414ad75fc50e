"""Guessing tokens from what the text said before (prompt lookup); greedy decoding verifies them in one step."""

from __future__ import annotations

from collections.abc import Sequence

from .reuse import Unit

LOOKUP_TOKENS = 0
"""Most tokens guessed at once by default."""
_GRAMS = (3, 2)
"""How many tokens have to agree, the first choice first."""


class PromptLookup:
    """Guesses for one sequence that begins with `units`: what followed where its last tokens stood before.

    At most `most` tokens are guessed at once; wrong guesses make the next ones shorter, right ones longer.
    """

    def __init__(self, most: int, units: Sequence[Unit]) -> None:
        self._most = self._size = most
        self._units: list[Unit] = []
        self._places: dict[tuple[Unit, ...], int] = {}
        if most:
            self._extend(units)

    def guess(self, room: int) -> list[int]:
        """Return tokens that may follow, at most `room`; none where nothing like the end was there before."""
        if not self._most or room < 1:
            return []
        for count in _GRAMS:
            place = self._places.get(tuple(self._units[-count:]))
            if place is not None:
                found: list[int] = []
                for unit in self._units[place : place + min(self._size, room)]:
                    if not isinstance(unit, int):  # a picture is not said
                        break
                    found.append(unit)
                return found
        return []

    def learn(self, tokens: Sequence[int], *, guessed: int) -> None:
        """Append the tokens that followed, after `guessed` guesses: all but the last one were guessed rightly."""
        if not self._most:
            return
        if guessed:
            right = len(tokens) - 1
            self._size = min(self._most, 2 * self._size) if right == guessed else max(1, right)
        self._extend(tokens)

    def _extend(self, units: Sequence[Unit]) -> None:
        for unit in units:
            # The grams that end here are entered once something follows: the end must not find itself.
            for count in _GRAMS:
                if len(self._units) >= count:
                    self._places[tuple(self._units[-count:])] = len(self._units)
            self._units.append(unit)
