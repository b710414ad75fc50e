"""Bytes of tokens, text in pieces, stop strings, streamers: against the tokenizers library and Transformers."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm.generation import TextIteratorStreamer
from faster_smolvlm.generation.stopping import StopStrings
from faster_smolvlm.generation.token_bytes import IncrementalText, TokenBytes
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from tests.helpers.generation import byte_level_tokenizer

pytestmark = pytest.mark.parity

SMALL = byte_level_tokenizer()
TEXT = "hello wörld, café naïve 🙂👩‍👩‍👧 漢字かな ok\n\tend"


def pieces(tokenizer: Tokenizer, ids: list[int], skip: bool) -> list[str]:
    text = IncrementalText(TokenBytes(tokenizer), skip_special_tokens=skip)
    return [text.feed([token]) for token in ids] + [text.finish()]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, SMALL.get_vocab_size() - 1), max_size=30), st.booleans())
def test_pieces_join_to_the_decoded_text_for_any_ids(ids: list[int], skip: bool) -> None:
    assert "".join(pieces(SMALL, ids, skip)) == SMALL.decode(ids, skip_special_tokens=skip)


def test_no_piece_splits_a_character() -> None:
    ids = SMALL.encode(TEXT).ids
    given_out = pieces(SMALL, ids, False)
    assert "".join(given_out) == TEXT
    assert not any("\ufffd" in piece for piece in given_out)
    assert len(given_out) == len(ids) + 1


def test_real_tokenizer_all_single_tokens_and_texts(data_dir: Path) -> None:
    tokenizer = Tokenizer.from_file(str(data_dir / "smolvlm2-256m-config" / "tokenizer.json"))
    table = TokenBytes(tokenizer)
    for token in range(tokenizer.get_vocab_size()):
        assert table[token].decode("utf-8", "replace") == tokenizer.decode([token], skip_special_tokens=False)
    assert table.special_ids == {
        index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
    }
    ids = tokenizer.encode("<|im_start|>User:<image>" + TEXT + "<end_of_utterance>").ids
    for skip in (False, True):
        assert "".join(pieces(tokenizer, ids, skip)) == tokenizer.decode(ids, skip_special_tokens=skip)


def test_ids_beyond_the_vocabulary_are_dropped_as_in_decode() -> None:
    ids = [*SMALL.encode("hello").ids, 10**6]
    assert "".join(pieces(SMALL, ids, False)) == SMALL.decode(ids) == "hello"


def test_other_tokenizers_are_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.decoder = decoders.WordPiece()
    with pytest.raises(TypeError, match="byte-level"):
        TokenBytes(words)
    with pytest.raises(TypeError, match=r"tokenizers\.Tokenizer"):
        TokenBytes(object())


def as_transformers(tokenizer: Tokenizer) -> transformers.PreTrainedTokenizerFast:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    "strings",
    [
        ["lo w"],
        ["o"],
        ["é"],
        ["🙂"],
        ["\n"],
        ["ell", "xyz"],
        ["hello world"],
        ["<end_of_utterance>"],
        ["of_utt"],
        ["wö"],
    ],
)
def test_stop_strings_equal_transformers_at_every_position(strings: list[str]) -> None:
    tokenizer = as_transformers(SMALL)
    theirs = transformers.StopStringCriteria(tokenizer=tokenizer, stop_strings=strings)
    text = "say hello world, hello wörld 🙂 <end_of_utterance> ell\nhello"
    # The same text in two cuts: merged tokens, and one token a byte.
    for ids in (SMALL.encode(text).ids, _byte_tokens(text)):
        mine = StopStrings(strings, TokenBytes(tokenizer))
        for end in range(1, len(ids) + 1):
            expected = bool(theirs(torch.tensor([ids[:end]]), None)[0])
            assert mine.end(ids[:end]) == mine.end(ids[:end][-mine.longest :]) == expected, (strings, ids[:end])


def _byte_tokens(text: str) -> list[int]:
    table = {bytes(TokenBytes(SMALL)[i]): i for i in range(256)}
    return [table[bytes([byte])] for byte in text.encode()]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(_byte_tokens("abhelo") + SMALL.encode("hello ell he").ids), min_size=2, max_size=25),
    st.lists(st.text("abhelo", min_size=1, max_size=6), min_size=1, max_size=3),
)
def test_stop_strings_equal_a_search_in_the_text(ids: list[int], strings: list[str]) -> None:
    tokens = TokenBytes(SMALL)
    mine = StopStrings(strings, tokens)
    for end in range(len(ids)):
        before = b"".join(tokens[i] for i in ids[:end])
        text = before + tokens[ids[end]]
        expected = any(
            text[start:].startswith(string.encode()) and start + len(string) > len(before)
            for string in strings
            for start in range(len(text))
        )
        assert mine.end(ids[: end + 1]) == expected


@pytest.mark.parametrize("strings", [[], [""], [3]])
def test_stop_strings_have_to_be_strings(strings: list[str]) -> None:
    with pytest.raises(ValueError, match="stop_strings"):
        StopStrings(strings, TokenBytes(SMALL))


@pytest.mark.parametrize("skip_prompt", [False, True])
@pytest.mark.parametrize("skip_special", [False, True])
def test_streamer_gives_the_text_of_transformers_streamer(skip_prompt: bool, skip_special: bool) -> None:
    tokenizer = as_transformers(SMALL)
    ids = SMALL.encode("<|im_start|>" + TEXT + "<end_of_utterance>").ids
    texts = []
    for kind in (TextIteratorStreamer, transformers.TextIteratorStreamer):
        streamer = kind(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=skip_special)
        for _ in range(2):  # a streamer can serve several calls
            streamer.put(torch.tensor([ids[:5]]))
            for token in ids[5:]:
                streamer.put(torch.tensor([token]))
            streamer.end()
            texts.append("".join(streamer))
    assert len(set(texts)) == 1


def test_streamer_takes_numpy_and_refuses_batches() -> None:
    streamer = TextIteratorStreamer(SMALL)
    streamer.put(np.array([SMALL.encode("hello").ids]))
    with pytest.raises(ValueError, match="batch size 1"):
        streamer.put(torch.zeros(2, 1, dtype=torch.int64))
    streamer.end()
    assert list(streamer) == ["hello"]
    with pytest.raises(ValueError, match="clean_up"):
        TextIteratorStreamer(SMALL, clean_up_tokenization_spaces=True)


def test_streamer_timeout_and_close() -> None:
    with pytest.raises(queue.Empty):
        next(TextIteratorStreamer(SMALL, timeout=0.01))
    streamer = TextIteratorStreamer(SMALL)
    waiting = threading.Thread(target=lambda: list(streamer), daemon=True)
    waiting.start()
    streamer.close()
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    streamer.put(torch.tensor([1]))
    streamer.end()
    assert list(streamer) == []
