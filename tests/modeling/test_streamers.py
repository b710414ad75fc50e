"""Streamers of `generate`: those of either side work on both, and closing one ends the call."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import transformers
from faster_smolvlm import TextIteratorStreamer

from tests.helpers.generate_pair import an_early_token, batch
from tests.helpers.generation import byte_level_tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("kind", [transformers.TextIteratorStreamer, TextIteratorStreamer])
@pytest.mark.parametrize("which", [0, 1])
def test_streamers_of_both_sides_work_on_both_sides(models: Any, kind: Any, which: int) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer())
    inputs = batch(6)
    streamer = kind(tokenizer, skip_prompt=True, timeout=60)
    thread = threading.Thread(
        target=models[which].generate, kwargs={**inputs, "streamer": streamer, "max_new_tokens": 12}
    )
    thread.start()
    text = "".join(streamer)
    thread.join()
    ids = models[0].generate(**inputs, max_new_tokens=12)
    assert text == tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])


def test_streamer_sees_what_transformers_puts(models: Any) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def put(self, value: torch.Tensor) -> None:
            self.seen.append((tuple(value.shape), value.tolist()))

        def end(self) -> None:
            self.seen.append("end")

    recorders = [Recorder(), Recorder()]
    inputs = batch(5, 3, 8)
    eos = an_early_token(models, inputs)
    for model, recorder in zip(models, recorders, strict=True):
        model.generate(**inputs, streamer=recorder, max_new_tokens=9, eos_token_id=eos)
    assert recorders[0].seen == recorders[1].seen


def test_closing_a_streamer_stops_the_call_and_frees_the_cache(models: Any) -> None:
    import gc
    import weakref

    from faster_smolvlm.modeling.kv_cache import KVCache

    made: list[Any] = []

    class Closing:
        closed = False

        def put(self, value: torch.Tensor) -> None:
            made.extend(weakref.ref(item) for item in gc.get_objects() if type(item) is KVCache)
            self.closed = len(made) > 0 and value.dim() == 1

        def end(self) -> None:
            pass

    inputs = batch(5)
    ids = models[1].generate(**inputs, streamer=Closing(), max_new_tokens=500, engine="torch")
    assert ids.shape[1] == inputs["input_ids"].shape[1] + 1
    gc.collect()
    assert made
    assert all(reference() is None for reference in made)


def test_an_error_ends_the_streamer(models: Any) -> None:
    streamer = TextIteratorStreamer(byte_level_tokenizer(), timeout=60)
    with pytest.raises(ZeroDivisionError):
        models[1].generate(
            **batch(5), streamer=streamer, max_new_tokens=5, logits_processor=[lambda ids, scores: 1 // 0]
        )
    list(streamer)
