"""What a prompt asks for, and what of it was known from earlier calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens: of the prompt, pictures included but not padding, and of the answer, its end included.

    `prompt_tokens_reused` of the prompt, and `frames_reused` of the `frames` (tiles) of its pictures, were known from
    earlier calls: a frame counts as reused if its tokens lay in a known prefix or were known by its content. The torch
    engine keeps nothing and counts no frames.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_reused: int = 0
    frames: int = 0
    frames_reused: int = 0
