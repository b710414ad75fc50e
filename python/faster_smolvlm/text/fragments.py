"""Token ids of pieces of prompts that come back in call after call, such as the text of a tile."""

from __future__ import annotations

from tokenizers import Tokenizer

_CAPACITY = 256


class FragmentCache:
    """The ids of fragments, and which tokens cut a text; both are forgotten when the vocabulary has changed."""

    def __init__(self) -> None:
        self._vocabulary: tuple[Tokenizer, int] | None = None
        self._ids: dict[str, list[int]] = {}
        self._cuts: dict[str, bool] = {}

    def encode(self, backend: Tokenizer, text: str) -> list[int]:
        """Return the ids of a text, without special tokens around it. The list is kept here: do not change it."""
        self._forget_other_vocabulary(backend)
        ids = self._ids.get(text)
        if ids is None:
            if len(self._ids) >= _CAPACITY:
                self._ids.clear()
            ids = self._ids[text] = list(backend.encode(text, add_special_tokens=False).ids)
        return ids

    def cuts_text_at(self, backend: Tokenizer, token: str) -> bool:
        """Whether `token` is an added token that is found before anything else and leaves its neighbours alone."""
        self._forget_other_vocabulary(backend)
        if token not in self._cuts:
            index = backend.token_to_id(token)
            added = None if index is None else backend.get_added_tokens_decoder().get(index)
            self._cuts[token] = added is not None and not (
                added.lstrip or added.rstrip or added.single_word or added.normalized
            )
        return self._cuts[token]

    def _forget_other_vocabulary(self, backend: Tokenizer) -> None:
        size = backend.get_vocab_size(with_added_tokens=True)
        if self._vocabulary is None or self._vocabulary[0] is not backend or self._vocabulary[1] != size:
            self._vocabulary = (backend, size)
            self._ids.clear()
            self._cuts.clear()
