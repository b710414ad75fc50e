"""Packing: all questions of a scene behind one copy of its picture.

Every question sees the picture and itself only (a block mask), at the positions it has in a conversation of its own, so
one pass over a picture trains eight questions or so, each in exactly the context of a single question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from .prompts import turn
from .questions import Question

IGNORED = -100


@dataclass
class Packed:
    """Tensors [batch, length]; blocks: 0 picture, 1… questions, -1 padding; labels, weights: of the next token."""

    ids: torch.Tensor
    positions: torch.Tensor
    blocks: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor

    def mask(self) -> torch.Tensor:
        """Return the attention mask [batch, 1, length, length], True where a token may look."""
        length = self.ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        seen = (self.blocks[:, None, :] == 0) | (self.blocks[:, None, :] == self.blocks[:, :, None])
        return (causal & seen)[:, None]


class Packer:
    """Turns the questions of a batch of scenes into one tensor batch."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; the same few texts come again and again."""
        if text not in self._known:
            self._known[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self._known[text]

    def turn(self, question: Question, video: bool) -> tuple[list[int], list[int]]:
        """Return the ids of a question, and those of the question with its answer."""
        asked = self.encode(turn(question.text, video=video))
        return asked, self.encode(turn(question.text, question.answer, video))

    def pack(
        self, openings: list[str], questions: list[list[Question]], weights: dict[str, float], video: bool = False
    ) -> Packed:
        """Pack each scene's questions behind its opening; answers of a kind count ``weights[kind]``, 1 by default."""
        rows = [[(q.kind, *self.turn(q, video)) for q in asked] for asked in questions]
        heads = [self.encode(text) for text in openings]
        length = max(len(head) + sum(len(full) for *_, full in row) for head, row in zip(heads, rows, strict=True))
        shape = (len(rows), length)
        ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        blocks, labels = np.full(shape, -1, np.int64), np.full(shape, IGNORED, np.int64)
        factors = np.zeros(shape, np.float32)
        for i, (head, row) in enumerate(zip(heads, rows, strict=True)):
            end = len(head)
            ids[i, :end], positions[i, :end], blocks[i, :end] = head, range(end), 0
            for block, (kind, asked, full) in enumerate(row, 1):
                start, end = end, end + len(full)
                ids[i, start:end], blocks[i, start:end] = full, block
                positions[i, start:end] = range(len(head), len(head) + len(full))
                labels[i, start + len(asked) - 1 : end - 1] = full[len(asked) :]
                factors[i, start + len(asked) - 1 : end - 1] = weights.get(kind, 1.0)
        return Packed(*map(torch.from_numpy, (ids, positions, blocks, labels, factors)))
