"""Beam search against Transformers', on the same random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from faster_smolvlm import TextIteratorStreamer

from tests.helpers.generate_pair import EOS, an_early_token, batch, both, equal
from tests.helpers.generation import byte_level_tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 3},
        {"num_beams": 3, "early_stopping": True},
        {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.3},
        {"num_beams": 3, "length_penalty": -1.5},
        {"num_beams": 3, "repetition_penalty": 1.3, "min_new_tokens": 4, "no_repeat_ngram_size": 2},
        {"num_beams": 3, "do_sample": True, "top_k": 20, "temperature": 1.5},
        {"num_beams": 2, "do_sample": True, "top_k": 0, "top_p": 0.6, "min_p": 0.1},
    ],
    ids=str,
)
def test_beam_search(models: Any, settings: dict[str, Any]) -> None:
    inputs = batch(5, 9)
    ends = {an_early_token(models, inputs, step) for step in (2, 4)}
    for eos in (EOS, sorted(ends), list(range(20, 80))):
        outputs = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
        theirs, ours = both(models, inputs, seed=4, max_new_tokens=11, eos_token_id=eos, **settings, **outputs)
        assert torch.equal(theirs.sequences, ours.sequences)
        assert torch.equal(theirs.beam_indices, ours.beam_indices)
        torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, atol=1e-4, rtol=1e-5)
        for name in ("scores", "logits"):
            for expected, actual in zip(theirs[name], ours[name], strict=True):
                torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)


def test_beam_search_with_stop_strings_and_without_pictures_or_cache(models: Any) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer())
    equal(models, batch(4, 9), num_beams=3, max_new_tokens=9, stop_strings=["a", "b", "e"], tokenizer=tokenizer)
    equal(models, batch(4, 9, pictures=0), num_beams=3, max_new_tokens=9)
    equal(models, batch(4, 9), num_beams=3, max_new_tokens=6, use_cache=False)


def test_beam_search_does_not_stream(models: Any) -> None:
    with pytest.raises(ValueError, match="streamer"):
        models[1].generate(
            **batch(4), num_beams=2, max_new_tokens=3, streamer=TextIteratorStreamer(byte_level_tokenizer())
        )
