"""The text of a prompt before the question: what the processor writes for a picture's tiles or a clip's frames."""

from __future__ import annotations

from datetime import timedelta

SEQUENCE = 16  # tokens to a frame
WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
VIDEO_END = "\n\n"
_FRAME = "<fake_token_around_image><global-img>" + "<image>" * SEQUENCE + "<fake_token_around_image>"


def image_prompt(grid: tuple[int, int]) -> str:
    """Return the expansion of one picture cut into (rows, columns) tiles."""
    text = ""
    for row in range(1, grid[0] + 1):
        for column in range(1, grid[1] + 1):
            text += f"<fake_token_around_image><row_{row}_col_{column}>" + "<image>" * SEQUENCE
        text += "\n"
    return text + "\n" + _FRAME


def video_intro(frames: int, duration: int) -> str:
    span = timedelta(seconds=duration)
    return f"You are provided the following series of {WORDS[frames]} frames from a {span} [H:MM:SS] video.\n"


def video_prompt(seconds: list[int], duration: int) -> str:
    """Return the expansion of a clip whose frames were taken at ``seconds``, up to its last frame."""
    frames = [f"\nFrame from {s // 60:02d}:{s % 60:02d}:{_FRAME}" for s in seconds]
    return video_intro(len(seconds), duration) + "".join(frames)


def opening(media: str, video: bool) -> str:
    """Return the conversation up to the question: the template puts no space before a picture."""
    return f"<|im_start|>User:{' ' if video else ''}{media}"


def turn(question: str, answer: str | None = None, video: bool = False) -> str:
    """Return what follows the last frame: the question, and the answer with the token that ends it."""
    asked = f"{VIDEO_END if video else ''}{question}<end_of_utterance>\nAssistant:"
    return asked if answer is None else f"{asked} {answer}<end_of_utterance>"
