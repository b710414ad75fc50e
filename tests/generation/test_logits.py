"""Logits processors and the sampler: equal to Transformers' on tensors, and the same on NumPy arrays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm.generation import logits as ours
from faster_smolvlm.generation.config import GenerationConfig
from faster_smolvlm.generation.sampling import Sampler, check_drawn

pytestmark = pytest.mark.parity

ROWS, VOCABULARY, LENGTH = 4, 500, 40


def scores_and_ids(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(ROWS, VOCABULARY, generator=generator) * 4
    scores[1, :10] = scores[1].max() + 1  # ties at the top
    scores[2, 5:] = -torch.inf
    ids = torch.randint(0, VOCABULARY + 3, (ROWS, LENGTH), generator=generator)  # some the head cannot produce
    ids[:, 20:30] = ids[:, 10:20]
    ids[:, -1] = ids[:, 12]
    return scores, ids


CASES: list[tuple[str, Any, Any]] = [
    (f"temperature {t}", ours.TemperatureLogitsWarper(t), transformers.TemperatureLogitsWarper(t))
    for t in (0.1, 0.7, 3.0)
]
CASES += [(f"top_k {k}", ours.TopKLogitsWarper(k), transformers.TopKLogitsWarper(k)) for k in (1, 5, 50, 499, 9999)]
CASES += [(f"top_p {p}", ours.TopPLogitsWarper(p), transformers.TopPLogitsWarper(p)) for p in (0.0, 0.3, 0.9, 0.999)]
CASES += [(f"min_p {p}", ours.MinPLogitsWarper(p), transformers.MinPLogitsWarper(p)) for p in (0.0, 0.05, 0.5, 1.0)]
CASES += [
    (name, getattr(ours, name)(value, min_tokens_to_keep=4), getattr(transformers, name)(value, min_tokens_to_keep=4))
    for name, value in (("TopKLogitsWarper", 2), ("TopPLogitsWarper", 0.01), ("MinPLogitsWarper", 1.0))
]
CASES += [
    (
        f"repetition_penalty {penalty} {padding}",
        ours.RepetitionPenaltyLogitsProcessor(penalty, padding),
        transformers.RepetitionPenaltyLogitsProcessor(
            penalty, prompt_ignore_length=None if padding is None else torch.tensor(padding)
        ),
    )
    for penalty in (0.8, 1.3)
    for padding in (None, [0, 3, 17, 40])
]
CASES += [
    (f"no_repeat_ngram {n}", ours.NoRepeatNGramLogitsProcessor(n), transformers.NoRepeatNGramLogitsProcessor(n))
    for n in (1, 2, 3, 41)
]
CASES += [
    (
        f"min_new_tokens {n}",
        ours.MinNewTokensLengthLogitsProcessor(LENGTH - 2, n, [3, 7]),
        transformers.MinNewTokensLengthLogitsProcessor(LENGTH - 2, n, [3, 7]),
    )
    for n in (2, 3)
]


CASES += [
    (f"suppress {ids}", ours.SuppressTokensLogitsProcessor(ids), transformers.SuppressTokensLogitsProcessor(ids))
    for ids in ([], [3], [3, 7, 499], [3, 500, -1])
]
CASES += [
    (
        f"suppress at begin {at}",
        ours.SuppressTokensAtBeginLogitsProcessor([3, 7], at),
        transformers.SuppressTokensAtBeginLogitsProcessor([3, 7], at),
    )
    for at in (LENGTH - 1, LENGTH)
]


def words() -> list[list[int]]:
    """Bad words of 1 token and more, some of which the ids are about to complete, one longer than they are."""
    rows = scores_and_ids()[1].tolist()
    begun = [[*row[-length:], 5 * length] for row in rows for length in (1, 2, 5, LENGTH)]
    fitting = [word for word in begun if max(word) < VOCABULARY]
    return [[3], [7], [9, 9], [9], *fitting, [*fitting[0][:-1], 77], [4, *rows[0][:-1], 1, 2], []]


CASES += [
    (f"bad words {ends}", ours.NoBadWordsLogitsProcessor(w, ends), transformers.NoBadWordsLogitsProcessor(w, ends))
    for ends, w in (([], words()), ([7], words()), ([3, 7], [[3], [7]]), ([3], [[3, 3]]))
]


@pytest.mark.parametrize(("mine", "theirs"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_processor_equals_transformers_on_both_kinds_of_arrays(mine: Any, theirs: Any) -> None:
    scores, ids = scores_and_ids()
    before = scores.clone()
    expected = theirs(ids, scores.clone())
    assert torch.equal(mine(ids, scores), expected)
    assert torch.equal(scores, before), "a processor leaves its input as it is"
    from_arrays = mine(ids.numpy(), scores.numpy())
    assert isinstance(from_arrays, np.ndarray)
    assert from_arrays.dtype == np.float32
    # Sorted, since torch and NumPy order ties in their own ways and top-p may keep other ones of equal scores.
    np.testing.assert_allclose(np.sort(from_arrays), np.sort(expected.numpy()), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 30, 124, 126])
@pytest.mark.parametrize("p", [0.2, 0.8, 0.999])
def test_top_p_after_top_k_equals_transformers(k: int, p: float) -> None:
    scores, ids = scores_and_ids()
    scores = transformers.TopKLogitsWarper(k)(ids, scores[[0, 2, 3]])  # ties may fall either way
    expected = transformers.TopPLogitsWarper(p)(ids, scores)
    assert torch.equal(ours.TopPLogitsWarper(p)(ids, scores), expected)
    np.testing.assert_array_equal(ours.TopPLogitsWarper(p)(ids.numpy(), scores.numpy()), expected.numpy())


@pytest.mark.parametrize(("mine", "theirs"), [case[1:] for case in CASES[-10:]], ids=[c[0] for c in CASES[-10:]])
def test_forbidding_is_equal_to_the_bit(mine: Any, theirs: Any) -> None:
    scores, ids = scores_and_ids()
    scores[0, :10] = torch.tensor([0.0, -0.0, torch.nan, torch.nan, -torch.inf, 1e-45, 3.0, torch.nan, 1.0, torch.nan])
    expected = theirs(ids, scores.clone()).numpy()
    assert mine(ids, scores).numpy().tobytes() == expected.tobytes()
    assert mine(ids.numpy(), scores.numpy()).tobytes() == expected.tobytes()
    assert mine(ids[:, :0], scores).numpy().tobytes() == theirs(ids[:, :0], scores.clone()).numpy().tobytes()


def test_a_bad_word_outside_the_vocabulary_is_an_error() -> None:
    scores, ids = scores_and_ids()
    for array in (ids, ids.numpy()):
        with pytest.raises(ValueError, match="vocabulary has 500"):
            ours.NoBadWordsLogitsProcessor([[3], [4, 500]])(array, scores)
    ours.NoBadWordsLogitsProcessor([[500]], [500])(ids, scores)  # an end-of-sequence token alone is not looked at


def test_the_order_is_that_of_transformers() -> None:
    config = GenerationConfig(
        repetition_penalty=1.2, no_repeat_ngram_size=2, bad_words_ids=[[3]], eos_token_id=3, min_new_tokens=2,
        suppress_tokens=[4], begin_suppress_tokens=[5], do_sample=True, temperature=0.5,
    )  # fmt: skip
    theirs = transformers.GenerationConfig(**{n: v for n, v in vars(config).items() if n not in ("extra", "file")})
    theirs._eos_token_tensor = torch.tensor([3])
    theirs.top_k = 0
    made = transformers.GenerationMixin._get_logits_processor(
        SimpleNamespace(
            config=SimpleNamespace(is_encoder_decoder=False), _merge_criteria_processor_list=lambda made, _: made
        ),
        theirs, input_ids_seq_length=5,
    )  # fmt: skip
    names = [type(p).__name__ for p in ours.build_processors(config, prompt_length=5, padding=None)]
    assert names == [type(processor).__name__ for processor in made]


def test_repetition_penalty_without_history() -> None:
    scores, _ = scores_and_ids()
    assert torch.equal(
        ours.RepetitionPenaltyLogitsProcessor(1.5)(torch.zeros(ROWS, 0, dtype=torch.int64), scores), scores
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: ours.TemperatureLogitsWarper(0.0),
        lambda: ours.TemperatureLogitsWarper(-1.0),
        lambda: ours.TemperatureLogitsWarper("hot"),  # type: ignore[arg-type]
        lambda: ours.TemperatureLogitsWarper(float("nan")),
        lambda: ours.TopKLogitsWarper(-1),
        lambda: ours.TopKLogitsWarper(1.5),  # type: ignore[arg-type]
        lambda: ours.TopPLogitsWarper(1.5),
        lambda: ours.TopPLogitsWarper(-0.1),
        lambda: ours.MinPLogitsWarper(2.0),
        lambda: ours.RepetitionPenaltyLogitsProcessor(0.0),
        lambda: ours.NoRepeatNGramLogitsProcessor(0),
    ],
)
def test_values_out_of_range_are_errors(build: Any) -> None:
    with pytest.raises(ValueError, match="has to be"):
        build()


def test_a_custom_processor_replaces_the_one_of_its_class_name() -> None:
    config = GenerationConfig(repetition_penalty=1.2, do_sample=True, temperature=0.5, eos_token_id=3, min_new_tokens=2)
    custom = transformers.RepetitionPenaltyLogitsProcessor(2.0)
    names = [
        type(processor).__name__
        for processor in ours.build_processors(config, prompt_length=5, padding=None, custom=[custom])
    ]
    assert names == [
        "MinNewTokensLengthLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "TemperatureLogitsWarper",
    ]


@pytest.mark.parametrize("shape", [(1, 50), (3, 50), (2, 49280)])
def test_sampler_draws_as_torch_multinomial(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    scores = torch.randn(shape) * 2
    scores[0, 3:10] = -torch.inf
    sampler = Sampler(True, shape[0])
    for seed in range(20):
        torch.manual_seed(seed)
        expected = torch.multinomial(scores.softmax(-1), 1)[:, 0]
        torch.manual_seed(seed)
        assert torch.equal(sampler(scores, range(shape[0])), expected)


def test_what_a_row_draws_does_not_depend_on_the_others() -> None:
    torch.manual_seed(1)
    scores = torch.randn(5, 50)
    all_rows = Sampler(True, 5, torch.Generator().manual_seed(7))(scores, range(5))
    some = Sampler(True, 5, torch.Generator().manual_seed(7))(scores[[1, 4]], [1, 4])
    assert torch.equal(some, all_rows[[1, 4]])


def test_sampler_on_arrays_follows_the_distribution() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2, 0.0]] * 4000, dtype=np.float32)
    with np.errstate(divide="ignore"):
        scores = np.log(probabilities)
    drawn = Sampler(True, 4000, np.random.default_rng(3))(scores, range(4000))
    counts = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(counts, probabilities[0], atol=0.03)
    assert counts[3] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nothing_to_draw_is_an_error(bad: float) -> None:
    scores = torch.zeros(2, 8)
    scores[1] = bad
    drawn = Sampler(True, 2)(scores, range(2)).tolist()
    assert drawn[0] >= 0
    with pytest.raises(ValueError, match="cannot draw a token"):
        check_drawn(drawn)
