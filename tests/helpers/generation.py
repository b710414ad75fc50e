"""What the tests of generation share: a small byte-level tokenizer, and an engine whose logits are a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ["<|im_start|>", "<|im_end|>", "<end_of_utterance>"]


def byte_level_tokenizer() -> Tokenizer:
    """256 byte tokens, a few merges, and three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    merges = []
    for pair in [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ã", "©"), ("ð", "Ł"), ("d", "o")]:
        merges.append(pair)
        vocabulary["".join(pair)] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


class TableEngine:
    """Logits depend on the last token alone; counts what it was asked to do."""

    def __init__(self, table: np.ndarray[Any, Any], last: Sequence[int], convert: Any = lambda x: x) -> None:
        self.table = table
        self.last = np.array(last)
        self.convert = convert
        self.rows_per_step: list[int] = []
        self.freed = 0

    def prefill(self) -> Any:
        return self.convert(self.table[self.last])

    def step(self, tokens: Any) -> Any:
        self.last = np.array(tokens.tolist())
        self.rows_per_step.append(len(self.last))
        return self.convert(self.table[self.last])

    def select(self, rows: Sequence[int]) -> None:
        self.last = self.last[list(rows)]

    def free(self) -> None:
        self.freed += 1
