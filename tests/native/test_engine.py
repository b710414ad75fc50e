"""The native engine as the generation loop drives it: batches, forks, reuse, threads, what ends a call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import CacheFullError
from faster_smolvlm.native import NativeEngine, NativeSmolVLM, start_generation
from faster_smolvlm.native.engine import Step

from tests.helpers.native_models import Saved, force, padded, prompt, reference

pytestmark = pytest.mark.parity


Make = Callable[[str], Saved]


def run(engine: NativeEngine, steps: list[Any]) -> list[np.ndarray]:
    """Logits of the prefill and of each step."""
    found = [engine.prefill()]
    found += [engine.step(np.asarray(tokens)) for tokens in steps]
    engine.free()
    return found


@pytest.mark.parametrize("name", ["odd", "large"])
def test_steps_after_a_padded_batch_with_pictures(random_model: Make, name: str) -> None:
    saved = random_model(name)
    config = saved.model.config
    first, second = prompt(config, 2, 30, seed=1), prompt(config, 1, 9, seed=2)
    batch = padded([first["input_ids"][0], second["input_ids"][0]])
    batch["pixel_values"] = np.zeros((2, 2, *first["pixel_values"].shape[2:]), np.float32)
    batch["pixel_values"][0], batch["pixel_values"][1, :1] = first["pixel_values"][0], second["pixel_values"][0]
    native = NativeSmolVLM.from_pretrained(saved.directory, num_threads=2)
    given = run(NativeEngine(native, **batch), [[5, 7], [8, 9]])
    for row, inputs in enumerate((first, second)):
        ids = np.concatenate([inputs["input_ids"], [[[5, 8], [7, 9]][row]]], 1)
        inputs = {**inputs, "input_ids": ids, "attention_mask": np.ones_like(ids)}
        expected = reference(saved.model, inputs)[0, -3:]
        np.testing.assert_allclose(np.stack([step[row] for step in given]), expected, atol=2e-4)


def test_patches_outside_the_picture_are_masked(random_model: Make) -> None:
    saved = random_model("odd")
    inputs = prompt(saved.model.config, 2, 10)
    inputs["pixel_attention_mask"][0, 0, :, 20:] = 0
    inputs["pixel_attention_mask"][0, 1, 33:, :] = 0
    full = reference(saved.model, prompt(saved.model.config, 2, 10))[0]
    expected = reference(saved.model, inputs)[0]
    assert np.abs(expected - full).max() > 0.01
    native = NativeSmolVLM.from_pretrained(saved.directory)
    given = native.logits(**{key: value for key, value in inputs.items() if key != "attention_mask"})
    np.testing.assert_allclose(given, expected, atol=2e-4)


@pytest.mark.parametrize("weights", [{}, {"dtype": "bfloat16"}, {"quantization": "int8"}])
@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512bf16", "amx"])
def test_results_depend_on_nothing_but_the_tokens(
    random_model: Make, weights: dict[str, str], isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: 1 and 2 threads, alone and in a batch, in one call and token by token, with and without reuse."""
    force(isa, monkeypatch)
    saved = random_model("odd")
    one = NativeSmolVLM.from_pretrained(saved.directory, num_threads=1, **weights)
    two = NativeSmolVLM.from_pretrained(saved.directory, num_threads=2, **weights)
    assert (one.isa, two.isa) == (isa, isa)
    inputs = prompt(saved.model.config, 1, 330, seed=3)
    ids = inputs["input_ids"][0]
    pixels = inputs["pixel_values"]
    (alone,) = run(NativeEngine(one, ids[None], pixel_values=pixels, reuse=False), [])
    (both,) = run(NativeEngine(two, ids[None], pixel_values=pixels, reuse=False), [])
    np.testing.assert_array_equal(alone, both)

    text = [ids[:n] for n in (3, 100, 260, 1, 40, 7, 7, 290)]
    batch = run(NativeEngine(two, **padded(text), reuse=False), [[4] * 8])
    for row, prompt_ids in enumerate(text):
        single = run(NativeEngine(one, prompt_ids[None], reuse=False), [[4]])
        for together, apart in zip(batch, single, strict=True):
            np.testing.assert_array_equal(together[row], apart[0])

    slow = NativeEngine(two, ids[None, :1], reuse=False)
    steps = run(slow, [[token] for token in ids[1:290]])
    np.testing.assert_array_equal(steps[289][0], batch[0][7])

    first = NativeEngine(two, ids[None], pixel_values=pixels)
    first.prefill()
    first.free()
    again = NativeEngine(two, ids[None], pixel_values=pixels)
    np.testing.assert_array_equal(again.prefill(), alone)
    again.free()
    (usage,) = again.usages
    assert (usage.prompt_tokens_reused, usage.frames, usage.frames_reused) == (len(ids) - 1, 1, 1)


def test_select_repeats_reorders_and_drops_rows(random_model: Make) -> None:
    native = NativeSmolVLM.from_pretrained(random_model("large").directory)
    rows = [np.arange(3, 3 + n) for n in (70, 5, 64)]
    engine = NativeEngine(native, **padded(rows), reuse=False)
    engine.prefill()
    engine.select([2, 0, 0])
    forked = [engine.step([9, 10, 11]), engine.step([12, 13, 14])]
    for row, (start, tokens) in enumerate([(2, [9, 12]), (0, [10, 13]), (0, [11, 14])]):
        whole = native.logits(np.concatenate([rows[start], tokens]))
        np.testing.assert_array_equal(np.stack([step[row] for step in forked]), whole[-2:])
    engine.free()
    free, pages, _ = native.rust.cache_pages()
    assert free == pages


def test_frames_and_prefixes_are_reused_and_only_where_equal(random_model: Make) -> None:
    saved = random_model("odd")
    native = NativeSmolVLM.from_pretrained(saved.directory)
    fresh = NativeSmolVLM.from_pretrained(saved.directory)
    inputs = prompt(saved.model.config, 2, 40, seed=5)
    pixels = inputs["pixel_values"]

    def ask(ids: np.ndarray, pixels: np.ndarray, **options: Any) -> tuple[int, int]:
        engine = NativeEngine(native, ids, pixel_values=pixels, **options)
        given = run(engine, [])[0]
        expected = run(NativeEngine(fresh, ids, pixel_values=pixels, reuse=False), [])[0]
        np.testing.assert_array_equal(given, expected)
        return engine.usages[0].prompt_tokens_reused, engine.usages[0].frames_reused

    ids = inputs["input_ids"]
    other = ids.copy()
    other[0, -5:] = 4
    swapped = np.ascontiguousarray(pixels[:, ::-1])
    blue = pixels.copy()
    blue[0, 1, 2, 0, 0] += 1e-6
    assert ask(ids, pixels) == (0, 0)
    assert ask(other, pixels) == (ids.shape[1] - 5, 2), "a second question on the same pictures"
    assert ask(other, pixels, reuse=False) == (0, 0)
    assert ask(ids, swapped) == (20, 2), "known frames, but in another order: the prefix ends before the first"
    frame_tokens = (ids.shape[1] - 40) // 2
    assert ask(ids, blue) == (20 + frame_tokens, 1), "the second frame differs in one value"
    native.features.clear()
    native.prefixes.clear()
    assert ask(ids, pixels) == (0, 0)


def test_kept_sequences_make_room(random_model: Make) -> None:
    native = NativeSmolVLM.from_pretrained(random_model("odd").directory, cache_positions=640)
    for seed in range(6):
        ids = np.random.default_rng(seed).integers(3, 100, (1, 200))
        run(NativeEngine(native, ids), [[5], [6]])
    with pytest.raises(CacheFullError, match="key/value cache, which holds 640"):
        NativeEngine(native, np.full((4, 300), 7)).prefill()


def test_generate_equals_transformers(random_model: Make) -> None:
    saved = random_model("large")
    native = NativeSmolVLM.from_pretrained(saved.directory)
    inputs = prompt(saved.model.config, 1, 12)
    with torch.no_grad():
        expected = saved.model.generate(
            **{key: torch.from_numpy(value) for key, value in inputs.items()}, max_new_tokens=20, do_sample=False
        )
    with start_generation(native, **inputs, max_new_tokens=20) as call:
        for _ in call:
            pass
    assert call.ids.tolist() == expected.tolist()


def test_ctrl_c_and_progress(random_model: Make) -> None:
    native = NativeSmolVLM.from_pretrained(random_model("odd").directory)
    seen: list[tuple[int, int]] = []

    def stop(done: int, todo: int) -> None:
        seen.append((done, todo))
        raise KeyboardInterrupt

    engine = NativeEngine(native, np.full((1, 600), 5), reuse=False, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        engine.prefill()
    engine.free()
    assert seen == [(512, 600)]
    free, pages, _ = native.rust.cache_pages()
    assert free == pages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": np.full((1, 701), 5)}, "701 tokens; 1 to 700"),
        ({"input_ids": np.array([[5, 131]])}, "token id 131"),
        ({"input_ids": np.array([[-1, 5]])}, "token id -1"),
        ({"input_ids": np.array([5, 6])}, "shape"),
        ({"input_ids": np.array([[0.5]])}, "integers"),
        ({"input_ids": np.array([[5, 6]]), "attention_mask": np.array([[1]])}, "attention_mask"),
        ({"input_ids": np.array([[5, 6]]), "attention_mask": np.array([[0, 0]])}, "0 tokens"),
        ({"input_ids": np.array([[130]]), "pixel_values": np.ones((1, 1, 3, 48, 48))}, "tokens: 1, features: 16"),
        ({"input_ids": np.array([[130]]), "pixel_values": np.ones((1, 3, 48, 48))}, "rows, frames, 3"),
        ({"input_ids": np.full((1, 2), 130), "pixel_values": np.ones((1, 1, 3, 12, 24))}, "square grid"),
    ],
)
def test_prompts_that_cannot_be_read(random_model: Make, arguments: dict[str, Any], message: str) -> None:
    native = NativeSmolVLM.from_pretrained(random_model("odd").directory)
    with pytest.raises(ValueError, match=message):
        NativeEngine(native, **arguments).prefill()
    good = NativeEngine(native, np.array([[5, 6]]))
    assert np.isfinite(good.prefill()).all()


def test_a_full_sequence_stays_as_it_is_and_others_go_on(random_model: Make) -> None:
    native = NativeSmolVLM.from_pretrained(random_model("odd").directory)
    full = NativeEngine(native, np.full((1, 700), 5), reuse=False)
    other = NativeEngine(native, np.full((1, 7), 5), reuse=False)
    full.prefill()
    other.prefill()
    with pytest.raises(ValueError, match="701 tokens long, the model's position limit is 700"):
        native.rust.step(Step(full._sequences, [1], np.array([5]), native.no_features(), np.array([-1]), [0]), True)
    assert not full.step([5]).any()
    assert native.rust.length(full._sequences[0]) == 700
    expected = native.logits(np.full(8, 5))[-1]
    np.testing.assert_array_equal(other.step([5])[0], expected)


@pytest.mark.parametrize("lookup", [0, 1, 8])
def test_guessing_changes_no_token(random_model: Make, lookup: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose rows repeat themselves, finish apart and are dropped: as steps that give their logits."""
    saved = random_model("odd")
    native = NativeSmolVLM.from_pretrained(saved.directory)
    pattern = np.tile(np.array([7, 8, 9, 10, 11]), 12)
    rows = [pattern, np.arange(3, 20), pattern[:13], prompt(saved.model.config, 1, 30)["input_ids"][0]]
    pixels = np.zeros((4, 1, 3, 48, 48), np.float32)
    pixels[3] = prompt(saved.model.config, 1, 30)["pixel_values"][0]
    steps: list[int] = []
    wrapped = NativeEngine._append

    def counted(engine: NativeEngine, step: Any, rows: list[int], pieces: list[list[int]], **options: Any) -> Any:
        steps.append(sum(map(len, pieces)) - len(pieces))
        return wrapped(engine, step, rows, pieces, **options)

    def answer(**settings: Any) -> list[list[int]]:
        with start_generation(native, **padded(rows), pixel_values=pixels, max_new_tokens=60, **settings) as call:
            for _ in call:
                pass
        return [
            row[:length] for row, length in zip(call.ids[:, call.prompt_length :].tolist(), call.lengths, strict=True)
        ]

    same = [lambda ids, scores: scores]  # a processor needs the logits
    free = answer(logits_processor=same, eos_token_id=-1)
    ends = [free[0][20], free[1][5]]
    monkeypatch.setattr(NativeEngine, "_append", counted)
    for settings in ({"eos_token_id": -1}, {"eos_token_id": ends, "pad_token_id": 0}):
        given = answer(prompt_lookup_num_tokens=lookup, reuse=False, **settings)
        assert given == answer(logits_processor=same, **settings)
    assert (max(steps) > 0) == (lookup > 0)
    native.prefixes.clear()
    left, pages, _ = native.rust.cache_pages()
    assert left == pages


def test_a_row_at_the_position_limit_ends_and_the_others_go_on(random_model: Make) -> None:
    native = NativeSmolVLM.from_pretrained(random_model("odd").directory, cache_positions=2048)
    rows = [np.full(690, 5), np.arange(3, 13), np.full(700, 6)]
    for settings in ({}, {"prompt_lookup_num_tokens": 6}, {"logits_processor": [lambda ids, scores: scores]}):
        with start_generation(native, **padded(rows), max_new_tokens=40, eos_token_id=-1, **settings) as call:
            for _ in call:
                pass
        assert call.finish_reasons == ["length"] * 3
        assert call.lengths == [11, 40, 1]
        with start_generation(native, rows[1][None], max_new_tokens=40, eos_token_id=-1) as alone:
            for _ in alone:
                pass
        assert call.ids[1, -40:].tolist() == alone.ids[0, -40:].tolist()


def test_prompts_beyond_the_cache_are_refused_before_anything_is_computed(random_model: Make) -> None:
    native = NativeSmolVLM.from_pretrained(random_model("odd").directory, cache_positions=256)
    with pytest.raises(CacheFullError, match="take 320 positions of the key/value cache, which holds 256"):
        NativeEngine(native, np.full((5, 60), 5))
    assert native.rust.cache_pages()[0] == native.rust.cache_pages()[1]


def test_progress_is_told_and_may_end_the_call(random_model: Make) -> None:
    saved = random_model("odd")
    native = NativeSmolVLM.from_pretrained(saved.directory)
    inputs = prompt(saved.model.config, 2, 560)
    told: list[tuple[int, int]] = []
    engine = NativeEngine(native, **inputs, progress=lambda done, every: told.append((done, every)), reuse=False)
    expected = engine.prefill()
    engine.free()
    tokens = 2 * 16
    assert told[0] == (16, told[-1][1])
    assert told[-1] == (tokens + 560 + tokens, tokens + 560 + tokens)
    assert [done for done, _ in told] == sorted({done for done, _ in told})

    class StopError(Exception):
        pass

    def stop(done: int, every: int) -> None:
        if done > 300:
            raise StopError

    with pytest.raises(StopError), start_generation(native, **inputs, progress=stop, max_new_tokens=2) as call:
        next(iter(call))
    native.prefixes.clear()
    assert native.rust.cache_pages()[0] == native.rust.cache_pages()[1]
    again = NativeEngine(native, **inputs)
    np.testing.assert_array_equal(again.prefill(), expected)
    again.free()


def test_ctrl_c_ends_a_call_between_two_steps(random_model: Make) -> None:
    code = (
        "import signal, sys, threading, time, os, numpy as np\n"
        "from faster_smolvlm.native import NativeSmolVLM, start_generation\n"
        # A shell's background jobs ignore the signal, and their children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "native = NativeSmolVLM.from_pretrained(sys.argv[1])\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    while True:\n"
        "        with start_generation(native, np.full((1, 600), 5), max_new_tokens=90, reuse=False) as call:\n"
        "            for _ in call: pass\n"
        "except KeyboardInterrupt:\n"
        "    free, pages, _ = native.rust.cache_pages()\n"
        "    assert free == pages, 'the interrupted call kept its memory'\n"
        "    with start_generation(native, np.full((1, 6), 5), max_new_tokens=3) as call:\n"
        "        for _ in call: pass\n"
        "    sys.exit(42)\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", code, str(random_model("odd").directory)], timeout=120).returncode == 42
    )


def test_kept_prompts_stay_within_their_bytes(random_model: Make) -> None:
    directory = random_model("odd").directory

    def known(budget: int) -> list[int]:
        native = NativeSmolVLM.from_pretrained(directory, prefix_cache_bytes=budget * each)
        found = []
        for seed in (0, 1, 0, 1):
            ids = np.random.default_rng(seed).integers(3, 100, (1, 100))
            engine = NativeEngine(native, ids)
            run(engine, [])
            found.append(engine.usages[0].prompt_tokens_reused)
        return found

    each = NativeSmolVLM.from_pretrained(directory).rust.position_bytes
    assert known(0) == known(99) == [0, 0, 0, 0]
    assert known(100) == known(199) == [0, 0, 0, 0], "the second prompt drove the first one out"
    assert known(200) == [0, 0, 99, 99]
