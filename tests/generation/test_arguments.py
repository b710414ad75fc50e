"""Callables and generators of a caller that are none, or give what is none: errors that name them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm.generation import arrays
from faster_smolvlm.generation.logits import MinPLogitsWarper, applied
from faster_smolvlm.generation.plan import Request
from faster_smolvlm.generation.sampling import make_generator


def forgets_to_return(ids: Any, scores: Any) -> Any:
    scores[:, 0] = 0.0


@pytest.mark.parametrize("scores", [np.zeros((2, 5), np.float32), torch.zeros(2, 5)])
def test_a_processor_that_returns_no_scores_is_named(scores: Any) -> None:
    wrong: list[tuple[Any, str]] = [
        (forgets_to_return, "'forgets_to_return' has to return the scores, .* but returned None"),
        (lambda ids, scores: scores.tolist(), "'<lambda>' has to return the scores"),
        (lambda ids, scores: scores[0], r"shape \(2, 5\)"),
        (lambda ids, scores: scores[:1], r"shape \(2, 5\)"),
        (lambda ids, scores: scores if isinstance(scores, list) else [scores], "'<lambda>'"),
    ]
    for processor, message in wrong:
        with pytest.raises(ValueError, match=message):
            applied(processor, None, scores)
    assert applied(lambda ids, scores: scores + 1, None, scores) is not None


@pytest.mark.parametrize("name", ["logits_processor", "stopping_criteria"])
def test_callables_come_in_a_list(name: str) -> None:
    for wrong in (len, 5, [5], "x", [len, None]):
        arguments: dict[str, Any] = {"logits_processor": None, "stopping_criteria": None, name: wrong}
        with pytest.raises(ValueError, match=f"{name} has to be a list of callables"):
            Request.of(None, **arguments)


def test_generators() -> None:
    for like, wrong in ((np.zeros(1), torch.Generator()), (torch.zeros(1), np.random.default_rng()), (np.zeros(1), 5)):
        with pytest.raises(ValueError, match=r"generator has to be a .*Generator"):
            make_generator(like, None, wrong)


@pytest.mark.parametrize("k", [1, 2, 7, 250, 499, 500])
def test_the_largest_of_a_row_without_a_sort_of_all(k: int) -> None:
    scores = np.random.default_rng(0).integers(-20, 20, (6, 500)).astype(np.float32)  # ties everywhere
    scores[1] = 3.0
    scores[2, 5:] = -np.inf
    scores[3, ::7] = np.nan
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    values, indices = arrays.top_k(scores, k)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, -1))


def test_min_p_sorts_no_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_sizes: list[int] = []
    real = np.argsort

    def argsort(x: Any, *args: Any, **options: Any) -> Any:
        sorted_sizes.append(x.shape[-1])
        return real(x, *args, **options)

    monkeypatch.setattr(np, "argsort", argsort)
    scores = np.random.default_rng(0).standard_normal((1, 5000)).astype(np.float32)
    MinPLogitsWarper(0.1)(np.zeros((1, 3), np.int64), scores)
    arrays.top_k(scores, 9)
    assert max(sorted_sizes) < 20
