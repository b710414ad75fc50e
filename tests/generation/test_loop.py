"""The loop over a table of logits: stop rules, rows that finish early, processors, cancelling; NumPy and torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm.generation import Decoding, GenerationConfig
from faster_smolvlm.generation.logits import build_processors
from faster_smolvlm.generation.sampling import Sampler, make_generator
from faster_smolvlm.generation.stopping import StopRules

from tests.helpers.generation import TableEngine

VOCABULARY = 12
PAD, EOS = 0, 11


def chain(**follows: int) -> np.ndarray[Any, Any]:
    """Token t is followed by t + 1; `follows` overrides (`t3=11`)."""
    table = np.full((VOCABULARY, VOCABULARY), -5.0, dtype=np.float32)
    for token in range(VOCABULARY):
        table[token, follows.get(f"t{token}", (token + 1) % VOCABULARY)] = 5.0
    return table


def start(
    engine: TableEngine, prompts: Any, most: int, *, eos: Sequence[int] = (EOS,), see_all: bool = False, **kinds: Any
) -> Decoding[TableEngine]:
    config = GenerationConfig(eos_token_id=list(eos), **kinds.pop("config", {}))
    copies = kinds.pop("copies", 1)
    rows = prompts.shape[0] * copies
    return Decoding(
        engine,
        prompts,
        copies=copies,
        max_new_tokens=most,
        pad_id=PAD if eos else None,
        processors=build_processors(config, prompt_length=prompts.shape[1], padding=None),
        sees_every_row=see_all,
        sampler=Sampler(bool(config.do_sample), rows, make_generator(prompts, 5, None)),
        stop=StopRules(eos_ids=list(eos), max_new_tokens=most, **kinds),
        config=config,
    )


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("see_all", [False, True])
def test_rows_finish_one_after_the_other(kind: str, see_all: bool) -> None:
    convert = torch.from_numpy if kind == "torch" else (lambda x: x)
    prompts = convert(np.array([[1, 8], [1, 3], [1, 10], [1, 6]]))
    engine = TableEngine(chain(), [8, 3, 10, 6], convert)
    call = start(engine, prompts, 6, see_all=see_all)
    columns = [column.tolist() for column in call]
    assert call.ids.tolist() == [
        [1, 8, 9, 10, 11, 0, 0, 0],
        [1, 3, 4, 5, 6, 7, 8, 9],
        [1, 10, 11, 0, 0, 0, 0, 0],
        [1, 6, 7, 8, 9, 10, 11, 0],
    ]
    assert columns == call.ids[:, 2:].T.tolist()
    assert call.finish_reasons == ["stop", "length", "stop", "stop"]
    assert engine.rows_per_step == ([4] * 5 if see_all else [3, 3, 2, 2, 1])
    assert engine.freed == 1


def test_the_sequence_ends_with_the_last_row() -> None:
    engine = TableEngine(chain(), [9, 8])
    call = start(engine, np.array([[9], [8]]), 50)
    list(call)
    assert call.ids.tolist() == [[9, 10, 11, 0], [8, 9, 10, 11]]
    assert len(engine.rows_per_step) == 2


def test_without_an_end_token_finished_rows_go_on_as_in_transformers() -> None:
    engine = TableEngine(chain(), [2, 3])
    criterion = lambda ids, scores: ids[:, -1] == 5  # noqa: E731
    call = start(engine, np.array([[2], [3]]), 10, eos=(), criteria=[criterion])
    list(call)
    assert call.ids.tolist() == [[2, 3, 4, 5], [3, 4, 5, 6]]
    assert call.finish_reasons == ["stop", "stop"]


def test_copies_repeat_the_state_after_the_prefill() -> None:
    engine = TableEngine(chain(t4=EOS), [1, 8])
    call = start(engine, np.array([[7, 1], [7, 8]]), 9, copies=3)
    list(call)
    assert call.ids.tolist() == [[7, 1, 2, 3, 4, 11]] * 3 + [[7, 8, 9, 10, 11, 0]] * 3


@pytest.mark.parametrize("see_all", [False, True])
def test_drawing_is_repeatable_and_does_not_depend_on_dropped_rows(see_all: bool) -> None:
    table = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY)).astype(np.float32)
    prompts = np.array([[1], [2], [3], [4]])
    results = []
    for seen in (see_all, False):
        call = start(TableEngine(table, [1, 2, 3, 4]), prompts, 30, see_all=seen, config={"do_sample": True})
        list(call)
        results.append(call.ids.tolist())
    assert results[0] == results[1]


def test_criteria_of_the_caller_see_ids_and_scores() -> None:
    seen = []

    def criterion(ids: Any, scores: Any) -> bool:
        seen.append((ids.shape, None if scores is None else len(scores)))
        return ids.shape[1] >= 4

    config = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    call = start(TableEngine(chain(), [1, 2]), np.array([[1], [2]]), 9, criteria=[criterion], config=config)
    list(call)
    assert seen == [((2, 2), 1), ((2, 3), 2), ((2, 4), 3)]
    assert call.scores is not None
    assert call.logits is not None
    assert [score.shape for score in call.scores] == [(2, VOCABULARY)] * 3
    assert call.finish_reasons == ["stop", "stop"]


def test_a_criterion_with_the_wrong_number_of_rows_is_an_error() -> None:
    engine = TableEngine(chain(), [1, 2])
    call = start(engine, np.array([[1], [2]]), 9, criteria=[lambda ids, scores: np.zeros(3, dtype=bool)])
    with pytest.raises(ValueError, match="stopping criterion"):
        list(call)
    assert engine.freed == 1


def test_max_time_ends_the_call() -> None:
    call = start(TableEngine(chain(), [1]), np.array([[1]]), 9, max_time=0.0)
    list(call)
    assert call.ids.shape[1] == 2
    assert call.finish_reasons == ["length"]


def test_closing_between_steps_frees_the_engine() -> None:
    engine = TableEngine(chain(), [1])
    with start(engine, np.array([[1]]), 9) as call:
        for column in call:
            if column.tolist() == [3]:
                break
    assert engine.freed == 1
    assert call.ids.tolist() == [[1, 2, 3]]
    assert call.finish_reasons == ["cancelled"]


def test_an_error_in_a_step_frees_the_engine() -> None:
    class Broken(TableEngine):
        def step(self, tokens: Any) -> Any:
            raise KeyboardInterrupt

    engine = Broken(chain(), [1])
    with pytest.raises(KeyboardInterrupt):
        list(start(engine, np.array([[1]]), 9))
    assert engine.freed == 1


def test_the_loop_runs_without_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None  # importing it would fail
import numpy as np
from faster_smolvlm.generation import GenerationConfig
from tests.helpers import generation as helpers
from faster_smolvlm.generation.loop import Decoding
from faster_smolvlm.generation.logits import build_processors
from faster_smolvlm.generation.sampling import Sampler, make_generator
from faster_smolvlm.generation.stopping import StopRules
config = GenerationConfig(do_sample=True, top_k=5, top_p=0.9, min_p=0.01, temperature=0.7, repetition_penalty=1.1,
                          no_repeat_ngram_size=2, min_new_tokens=3, eos_token_id=1)
prompts = np.array([[1, 2], [3, 4]])
table = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
call = Decoding(helpers.TableEngine(table, [2, 4]), prompts, copies=2, max_new_tokens=8, pad_id=0,
    processors=build_processors(config, prompt_length=2, padding=[0, 1, 0, 1]), sees_every_row=False,
    sampler=Sampler(True, 4, make_generator(prompts, 3, None)), stop=StopRules(eos_ids=[1], max_new_tokens=8),
    config=config)
list(call)
print(call.ids.shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "(4, 10)\n", done.stderr
