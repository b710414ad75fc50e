"""What a tokenizer remembers between calls, and the names of a call's arguments."""

from __future__ import annotations

import inspect
from pathlib import Path

from faster_smolvlm.text.call_options import TextOptions
from faster_smolvlm.text.tokenization_smolvlm import SmolVLMTokenizer
from tokenizers import AddedToken


def test_fragments_are_forgotten_when_the_vocabulary_grows(small_checkpoint: Path) -> None:
    tokenizer = SmolVLMTokenizer.from_pretrained(small_checkpoint)
    pieces = tokenizer.encode_fragment("<new>")
    assert tokenizer.encode_fragment("<new>") is pieces
    assert len(pieces) > 1
    assert not tokenizer.cuts_text_at("<new>")
    tokenizer.add_tokens([AddedToken("<new>", special=True, normalized=False)])
    assert tokenizer.encode_fragment("<new>") == [len(tokenizer) - 1]
    assert tokenizer.cuts_text_at("<new>")


def test_fragments_are_forgotten_with_another_backend(small_checkpoint: Path) -> None:
    tokenizer, other = (SmolVLMTokenizer.from_pretrained(small_checkpoint) for _ in range(2))
    for one, token in ((tokenizer, "<a>"), (other, "<b>")):  # of equal size
        one.add_tokens([AddedToken(token, special=True, normalized=False)])
    assert len(tokenizer.encode_fragment("<b>")) > 1
    tokenizer.backend_tokenizer = other.backend_tokenizer
    assert tokenizer.encode_fragment("<b>") == [len(tokenizer) - 1]
    assert not tokenizer.cuts_text_at("<a>")


def test_a_token_that_touches_its_neighbours_does_not_cut(small_checkpoint: Path) -> None:
    tokenizer = SmolVLMTokenizer.from_pretrained(small_checkpoint)
    tokenizer.add_tokens([AddedToken("<strips>", special=True, normalized=False, lstrip=True)])
    assert tokenizer.cuts_text_at("<image>")
    assert not tokenizer.cuts_text_at("<strips>")
    assert not tokenizer.cuts_text_at("not a token")


def test_the_options_are_the_arguments_of_the_call() -> None:
    arguments = list(inspect.signature(SmolVLMTokenizer.__call__).parameters)
    assert arguments[:2] == ["self", "text"]
    assert set(arguments[2:]) == set(TextOptions.__annotations__)
