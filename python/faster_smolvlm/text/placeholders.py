"""The text that a picture or a clip becomes inside a prompt, and number words for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple, TypedDict

from .control_tokens import UNMARKED

Grid = tuple[int, int]
"""Rows and columns of the tiles of a picture; (0, 0) if it is one frame."""


class MediaTokens(NamedTuple):
    """The tokens that stand for a picture or a clip, and around the features of one tile."""

    image: str = "<image>"
    video: str = "<video>"
    fake_image: str = "<fake_token_around_image>"
    global_image: str = "<global-img>"


class Clip(NamedTuple):
    """When the frames of a clip were taken (`frames_indices` count the frames of the file).

    `padded_frames` is how many frames the longest clip of the call has: the number that the prompt tells the model.
    """

    fps: float | None
    duration: float | None
    frames_indices: Sequence[int] | None
    padded_frames: int


@lru_cache(maxsize=256)
def image_prompt(grid: Grid, image_seq_len: int, tokens: MediaTokens) -> str:
    """Return the expansion of one `<image>`: rows × columns of tiles, then the global view; (0, 0) is the latter alone.

    Every tile and the global view hold `image_seq_len` image tokens. The result is cached, so that equal pictures
    share one string object.
    """
    rows, cols = grid
    features = tokens.image * image_seq_len
    whole = f"{tokens.fake_image}{tokens.global_image}{features}{tokens.fake_image}"
    if rows == 0 and cols == 0:
        return whole
    tiles = "".join(
        "".join(f"{tokens.fake_image}<row_{row}_col_{col}>{features}" for col in range(1, cols + 1)) + "\n"
        for row in range(1, rows + 1)
    )
    return f"{tiles}\n{whole}"


def num_image_frames(grid: Grid) -> int:
    """Return how many frames of pixels a picture has: its tiles and the global view."""
    rows, cols = grid
    return rows * cols + 1


def video_prompt(clip: Clip, frame_prompt: str) -> str:
    """Return the expansion of one `<video>`: an intro, then each frame with its time stamp.

    `frame_prompt` stands for the picture of each frame. Raises ValueError if the clip has no frame rate or no frame
    indices.
    """
    seconds = timestamps(clip)
    end = clip.duration if clip.duration is not None else (seconds[-1] if seconds else 0.0)
    intro = (
        f"You are provided the following series of {number_in_words(clip.padded_frames)} frames "
        f"from a {timedelta(seconds=int(end))} [H:MM:SS] video.\n"
    )
    frames = "".join(
        f"\nFrame from {int(second // 60):02d}:{int(second % 60):02d}:{frame_prompt}" for second in seconds
    )
    return f"{intro}{frames}\n\n"


def timestamps(clip: Clip) -> list[float]:
    """Return the time of each sampled frame, in seconds."""
    if clip.fps is None or clip.frames_indices is None:
        missing = "frame rate (fps)" if clip.fps is None else "frames_indices"
        raise ValueError(f"Cannot tell the times of the frames: the metadata of the video has no {missing}.")
    return [index / clip.fps for index in clip.frames_indices]


# fmt: off
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def number_in_words(number: int) -> str:
    """Return an integer in 0…999,999 as English words ("sixty-four", "one hundred and one")."""
    if not 0 <= number < 1_000_000:
        raise ValueError(f"number words exist for 0…999,999 here, got {number}")
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _below_thousand(rest)
    if not rest:
        return f"{_below_thousand(thousands)} thousand"
    return f"{_below_thousand(thousands)} thousand{' and ' if rest < 100 else ', '}{_below_thousand(rest)}"


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    if hundreds:
        return f"{_UNITS[hundreds]} hundred" + (f" and {_below_thousand(rest)}" if rest else "")
    if rest < 20:
        return _UNITS[rest]
    tens, unit = divmod(rest, 10)
    return _TENS[tens - 2] + (f"-{_UNITS[unit]}" if unit else "")


class Placeholder(NamedTuple):
    """One `<image>` or `<video>` of a text, found at `start`…`end`."""

    kind: str
    start: int
    end: int


class Replacement(TypedDict):
    """What became of a placeholder: its characters in the old and in the new text, and both texts."""

    type: str
    span: tuple[int, int]
    new_span: tuple[int, int]
    text: str
    replacement: str


def find_placeholders(text: str, tokens: dict[str, str], sanitize: bool = False) -> list[Placeholder]:
    """Return the placeholders of a text in order; `tokens` maps each kind to its token.

    With `sanitize`, tokens that `control_tokens.mark` marked are none.
    """
    if not tokens:
        return []
    before = UNMARKED if sanitize else ""
    pattern = re.compile("|".join(f"(?P<{kind}>{before}{re.escape(token)})" for kind, token in tokens.items()))
    return [Placeholder(str(match.lastgroup), *match.span()) for match in pattern.finditer(text)]


def replace_placeholders(
    text: str, placeholders: Sequence[Placeholder], replacements: Sequence[str]
) -> tuple[str, list[Replacement]]:
    """Return the text with `replacements` instead of `placeholders`, and what was replaced by what."""
    pieces: list[str] = []
    replaced: list[Replacement] = []
    last = shift = 0
    for found, replacement in zip(placeholders, replacements, strict=True):
        pieces += [text[last : found.start], replacement]
        start = found.start + shift
        replaced.append(
            {
                "type": found.kind,
                "span": (found.start, found.end),
                "new_span": (start, start + len(replacement)),
                "text": text[found.start : found.end],
                "replacement": replacement,
            }
        )
        shift += len(replacement) - (found.end - found.start)
        last = found.end
    return "".join([*pieces, text[last:]]), replaced
