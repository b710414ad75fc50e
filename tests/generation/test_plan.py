"""The set-up of a generation: what the plan makes of a request, limits of an engine, streamers, warnings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm.generation.config import GenerationConfig, asks_to_draw
from faster_smolvlm.generation.plan import Plan, Request
from faster_smolvlm.generation.streamers import ended

from tests.helpers.generation import TableEngine

# Token t is followed by t + 1; 11, the end of a sequence, by 0.
CHAIN = np.roll(np.eye(12, dtype=np.float32), 1, axis=1)
DEFAULT = GenerationConfig(eos_token_id=11, pad_token_id=0)


class LimitedTableEngine(TableEngine):
    """A table whose rows can take so many tokens."""

    new_token_limits = (2, 5)


def plan(prompts: Any, *, mask: Any = None, **arguments: Any) -> Plan:
    """The plan of a call with these arguments."""
    request = Request.of(None, None, None, **arguments)
    return Plan.of(request, request.resolve(DEFAULT), prompts, mask=mask)


def test_what_is_no_field_of_the_request_is_a_setting() -> None:
    request = Request.of({"top_k": 3}, None, [len], seed=4, top_p=0.5, do_sample=True)
    assert (request.seed, request.stopping_criteria, request.logits_processor) == (4, (len,), ())
    assert request.settings == {"top_p": 0.5, "do_sample": True}
    config = request.resolve(DEFAULT)
    assert (config.top_k, config.top_p, config.eos_ids) == (3, 0.5, [11])
    with pytest.raises(ValueError, match="'top_q'"):
        Request.of(None, None, None, top_q=1).resolve(DEFAULT)


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor])
def test_padding_is_counted_for_each_copy(convert: Any) -> None:
    prompts = convert([[0, 0, 5], [3, 4, 5]])
    made = plan(prompts, mask=convert([[0, 0, 1], [1, 1, 1]]), num_return_sequences=2, do_sample=True, max_new_tokens=3)
    assert (made.copies, made.padding) == (2, [2, 2, 0, 0])
    assert plan(prompts, mask=convert([[1, 1, 1], [1, 1, 1]]), max_new_tokens=3).padding is None
    assert plan(prompts, max_new_tokens=3).padding is None


def test_the_shortest_length_counts_the_prompt_out() -> None:
    made = plan(np.array([[1, 2, 3]]), max_new_tokens=9, min_length=5)
    assert (made.max_new_tokens, made.config.min_new_tokens) == (9, 2)
    call = plan(np.array([[10]]), max_new_tokens=4, min_length=3).decoding(TableEngine(CHAIN, [10]))
    call.run()
    assert call.lengths[0] >= 2


@pytest.mark.parametrize("copies", [1, 2])
def test_rows_end_at_the_limit_of_the_engine(copies: int) -> None:
    settings = {"num_return_sequences": copies, "do_sample": copies > 1, "top_k": 1} if copies > 1 else {}
    call = plan(np.array([[1], [2]]), max_new_tokens=9, **settings).decoding(LimitedTableEngine(CHAIN, [1, 2]))
    call.run()
    assert call.lengths == [2] * copies + [5] * copies
    assert call.finish_reasons == ["length"] * 2 * copies


def test_a_finished_row_is_filled_with_the_pad_token_or_the_end() -> None:
    assert GenerationConfig(eos_token_id=[7, 8]).pad_id == 7
    assert GenerationConfig(eos_token_id=[7], pad_token_id=0).pad_id == 0
    assert GenerationConfig().pad_id is None


def test_a_streamer_gets_prompt_and_tokens_and_may_end_the_call() -> None:
    class Streamer:
        closed = False

        def __init__(self) -> None:
            self.got: list[Any] = []

        def put(self, value: Any) -> None:
            self.got.append(value.tolist())
            self.closed = value.tolist() == [4]

        def end(self) -> None:
            self.got.append("end")

    streamer = Streamer()
    engine = TableEngine(CHAIN, [1])
    call = plan(np.array([[1]]), max_new_tokens=9).decoding(engine)
    with ended(streamer):
        call.run(streamer)
    assert streamer.got == [[[1]], [2], [3], [4], "end"]
    assert (engine.freed, call.finish_reasons) == (1, ["cancelled"])
    with pytest.raises(ZeroDivisionError), ended(streamer):
        raise ZeroDivisionError
    assert streamer.got[-2:] == ["end", "end"]


def test_warnings_point_at_the_line_of_the_caller() -> None:
    with pytest.warns(UserWarning, match="temperature") as caught:
        Request.of(None, None, None, temperature=0.5).resolve(DEFAULT)
    with pytest.warns(UserWarning, match="max_new_tokens") as also:
        plan(np.array([[1]]))
    assert [warning.filename for warning in [*caught, *also]] == [__file__, __file__]


def test_which_settings_ask_for_drawing() -> None:
    assert all(asks_to_draw({name: 0.5}) for name in ("temperature", "top_k", "top_p", "min_p"))
    assert not asks_to_draw({"temperature": None, "repetition_penalty": 1.2, "max_new_tokens": 3})
