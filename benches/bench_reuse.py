"""What the native engine saves: a second question, blank tiles, guessing ahead.

    python -m benches.bench_reuse --config DIR [--threads 2] [--rounds 3]

DIR holds a real `config.json` with the processor's files; the weights are random bfloat16. Guessing is measured on the
demo checkpoint's answers to its own questions, and its price on the real size: a step of several tokens against one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from faster_smolvlm import SmolVLM, SmolVLMConfig, SmolVLMProcessor
from faster_smolvlm.native import NativeSmolVLM
from faster_smolvlm.native.engine import Step
from faster_smolvlm.native.random_weights import random_tensors

from benches import timing
from examples.train_demo.heldout import scene_items

LOOKUPS = (0, 2, 4, 8)
QUESTIONS = ("Describe the image.", "And what else is there?")
GUESSES = (0, 1, 2, 4, 8)


def load(directory: Path, threads: int) -> SmolVLM:
    config = SmolVLMConfig.from_pretrained(directory)
    model = NativeSmolVLM(random_tensors(config), config, dtype="bfloat16", num_threads=threads)
    return SmolVLM(model, SmolVLMProcessor.from_pretrained(directory))


def first_token(vlm: SmolVLM, question: str, picture: np.ndarray, **options: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = vlm.generate(question, images=[picture], max_new_tokens=1, min_new_tokens=1, **options)
    return time.perf_counter() - start, result


def forget(vlm: SmolVLM) -> None:
    vlm.model.features.clear()
    vlm.model.prefixes.clear()


def second_question(vlm: SmolVLM, picture: np.ndarray, rounds: int) -> None:
    firsts, seconds = [], []
    for _ in range(rounds):
        forget(vlm)
        firsts.append(first_token(vlm, QUESTIONS[0], picture)[0])
        took, result = first_token(vlm, QUESTIONS[1], picture)
        seconds.append(took)
    expected = first_token(vlm, QUESTIONS[1], picture, reuse=False)[1]
    assert result.token_ids == expected.token_ids
    first, second = statistics.median(firsts), statistics.median(seconds)
    print(f"to the first token: first question {first:.2f} s, second {second * 1e3:.0f} ms, {first / second:.0f}x")


def blank_tiles(vlm: SmolVLM, rounds: int) -> None:
    """A square page of 4 x 4 tiles, its lower half white; the writing ends where no filter reaches down to there."""
    page = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    page[len(page) // 2 - 16 :] = 255
    on, off = [], []
    for _ in range(rounds):
        forget(vlm)
        took, result = first_token(vlm, QUESTIONS[0], page)
        on.append(took)
        took, expected = first_token(vlm, QUESTIONS[0], page, reuse=False)
        off.append(took)
        assert result.token_ids == expected.token_ids
    usage, without, cached = result.usage, statistics.median(off), statistics.median(on)
    print(
        f"page with half its tiles blank: {without:.2f} s without the cache, {cached:.2f} s with it, "
        f"{without / cached:.2f}x; {usage.frames_reused} of {usage.frames} frames were known; equal output"
    )


def price_of_guesses(vlm: SmolVLM) -> None:
    rust, none = vlm.model.rust, vlm.model.no_features()
    sequence = rust.open()

    def step(count: int) -> None:
        ids, rows = np.arange(3, 3 + count), np.full(count, -1)
        rust.step(Step([sequence], [count], ids, none, rows, list(range(count))), True)

    step(200)

    def run(guesses: int) -> Callable[[], None]:
        def steps() -> None:
            for _ in range(8):
                step(1 + guesses)
                rust.truncate(sequence, 200)

        return steps

    times = timing.alternate({str(guesses): run(guesses) for guesses in GUESSES}, rounds=5)
    base = times["0"].median
    print("price of a step: " + ", ".join(f"{g} guesses {times[str(g)].median / base:.2f}x" for g in GUESSES))


def guessing(rounds: int) -> None:
    vlm = SmolVLM.from_pretrained("demo", device="cpu")
    items = scene_items(8, seed=41)
    tokens = 0

    def answers(lookup: int) -> Callable[[], list[list[int]]]:
        def run() -> list[list[int]]:
            nonlocal tokens
            results = [
                vlm.generate(
                    item.question.text, images=[item.media], max_new_tokens=64, prompt_lookup_num_tokens=lookup
                )
                for item in items
            ]
            tokens = sum(result.usage.completion_tokens for result in results)
            return [result.token_ids for result in results]

        return run

    assert all(answers(lookup)() == answers(0)() for lookup in LOOKUPS)
    times = timing.alternate({str(lookup): answers(lookup) for lookup in LOOKUPS}, rounds=rounds)
    base = times["0"].median
    print(
        f"demo, {len(items)} questions, {tokens} tokens, equal answers: "
        + ", ".join(f"at most {n} guesses {base / times[str(n)].median:.2f}x" for n in LOOKUPS)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    vlm = load(options.config, options.threads)
    print(timing.machine(), f"{options.threads} threads, {vlm.model.isa}, bfloat16")
    picture = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    guessing(options.rounds)
    price_of_guesses(vlm)
    second_question(vlm, picture, options.rounds)
    blank_tiles(vlm, options.rounds)


if __name__ == "__main__":
    main()
