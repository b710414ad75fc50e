"""Streamers: what `generate(streamer=…)` hands each new token to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Protocol

from .arrays import Array
from .token_bytes import IncrementalText, TokenBytes


class Streamer(Protocol):
    """What a streamer has to have; those of Transformers do."""

    def put(self, value: Array) -> None:
        """Take token ids: first the prompt [rows, length], then one array [rows] a step."""

    def end(self) -> None:
        """Take note that nothing more comes."""


@contextmanager
def ended(streamer: Streamer | None) -> Iterator[None]:
    """Call `streamer.end()` after the block, also after an error in it."""
    try:
        yield
    finally:
        if streamer is not None:
            streamer.end()


class TextIteratorStreamer:
    """The generated text as an iterator of pieces, while `generate` runs in another thread.

    `skip_prompt` leaves out the prompt, `skip_special_tokens` the special tokens; `timeout` is the longest wait for a
    piece in seconds (`queue.Empty` is raised after it). A piece is handed over as soon as its characters are
    complete: pieces joined are the decoded text, no character is ever split. `close()`, or leaving the `with` block,
    drops what waits and makes `generate` stop after the step it is in. Batches of one row only, as in Transformers
    (ValueError).
    """

    def __init__(
        self,
        tokenizer: object,
        skip_prompt: bool = False,
        timeout: float | None = None,
        *,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> None:
        if clean_up_tokenization_spaces:
            raise ValueError("clean_up_tokenization_spaces changes text already handed over; leave it False to stream")
        self.timeout = timeout
        self.skip_prompt = skip_prompt
        self.closed = False
        self._text = IncrementalText(TokenBytes(tokenizer), skip_special_tokens=skip_special_tokens)
        self._at_prompt = True
        self._pieces: SimpleQueue[str | None] = SimpleQueue()

    def put(self, value: Array) -> None:
        """Take token ids, [length] or [1, length]."""
        if self.closed:
            return
        if len(value.shape) > 1:
            if value.shape[0] > 1:
                raise ValueError(f"TextIteratorStreamer only supports batch size 1, got {value.shape[0]} rows")
            value = value[0]
        is_prompt, self._at_prompt = self._at_prompt, False
        if is_prompt and self.skip_prompt:
            return
        self._hand_over(self._text.feed(value.tolist()))

    def end(self) -> None:
        """Hand over what is left and end the iteration; the streamer can then serve another call."""
        self._hand_over(self._text.finish())
        self._at_prompt = True
        self._pieces.put(None)

    def close(self) -> None:
        """Drop the pieces that wait, end the iteration, and make `generate` stop."""
        self.closed = True
        while not self._pieces.empty():
            self._pieces.get_nowait()
        self._pieces.put(None)

    def _hand_over(self, piece: str) -> None:
        if piece and not self.closed:
            self._pieces.put(piece)

    def __iter__(self) -> TextIteratorStreamer:
        return self

    def __next__(self) -> str:
        piece = None if self.closed else self._pieces.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece

    def __enter__(self) -> TextIteratorStreamer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
