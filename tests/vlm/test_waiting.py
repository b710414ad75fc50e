"""More requests than the key/value cache holds wait, first come, first served; those that never fit are refused."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import CacheFullError, NativeSmolVLM, SmolVLM
from faster_smolvlm.native import NativeEngine
from PIL import Image

QUESTION = "Describe the image."
LONG: dict[str, Any] = {"min_new_tokens": 60, "max_new_tokens": 64}
PICTURE = Image.new("RGB", (128, 128), (90, 90, 100))


@pytest.fixture(scope="module")
def loaded() -> SmolVLM:
    """Has 16 pages of 64 positions."""
    return SmolVLM.from_pretrained("demo", device="cpu", num_threads=1, cache_positions=1024)


@pytest.fixture
def vlm(loaded: SmolVLM) -> Iterator[SmolVLM]:
    yield loaded
    loaded.model.prefixes.clear()
    gc.collect()
    assert loaded.model.rust.cache_pages() == (16, 16, 64)
    assert loaded.model.admission._held == loaded.model.admission._waiting == []


def open_stream(vlm: SmolVLM, new: int = 640) -> Any:
    """Return a stream that holds the pages of `new` positions and of its prompt, after its first piece."""
    stream = vlm.stream("Hello", max_new_tokens=new, min_new_tokens=new, reuse=False)
    next(stream)
    return stream


def started(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run in another thread; the list gets what comes of it."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize(("requests", "new"), [(48, 64), (200, 8)])
def test_many_requests_at_once_are_answered_as_one_by_one(requests: int, new: int) -> None:
    vlm = SmolVLM.from_pretrained("demo", device="cpu", num_threads=1, cache_positions=4096 if new > 8 else 1024)
    pictures = [Image.new("RGB", (128, 128), (50 * number, 90, 100)) for number in range(5)]

    def one(number: int) -> list[int]:
        ask: dict[str, Any] = {"min_new_tokens": new - 4, "max_new_tokens": new, "reuse": number % 3 > 0}
        return vlm.generate(f"Question {number % 5}?", images=pictures[number % 5], **ask).token_ids

    expected = [one(number) for number in range(5)]
    with ThreadPoolExecutor(requests) as pool:
        assert list(pool.map(one, range(requests))) == expected * (requests // 5) + expected[: requests % 5]
    vlm.model.prefixes.clear()
    free, pages, _ = vlm.model.rust.cache_pages()
    assert free == pages


def test_a_call_waits_for_an_open_stream_and_its_turn(vlm: SmolVLM) -> None:
    stream = open_stream(vlm)
    large, first = started(lambda: vlm.generate(QUESTION, max_new_tokens=500, min_new_tokens=500))
    until(lambda: vlm.model.admission._waiting)
    small, second = started(lambda: vlm.generate("Hi", max_new_tokens=2))
    until(lambda: len(vlm.model.admission._waiting) == 2)
    time.sleep(0.05)
    assert first == second == [], "the small one fits, but came later"
    assert len("".join(stream)) > 0
    for thread in (large, small):
        thread.join(20)
    assert [result.finish_reason for result in (*first, *second)] == ["length"] * 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("reuse", [False, True])
def test_what_is_kept_gives_way_and_is_used_again(vlm: SmolVLM, reuse: bool) -> None:
    words = "word " * 120
    kept = vlm.generate(words, max_new_tokens=2)
    stream = open_stream(vlm, 300)
    assert vlm.generate(words, max_new_tokens=2).usage.prompt_tokens_reused > 100
    assert vlm.generate("other " * 100, max_new_tokens=100, reuse=reuse).token_ids
    stream.close()
    assert vlm.generate(words, max_new_tokens=2).token_ids == kept.token_ids


def test_not_to_wait_is_a_typed_error(vlm: SmolVLM) -> None:
    stream = open_stream(vlm)
    for seconds, least in ((0, 0.0), (0.1, 0.1), (np.float32(0.05), 0.05)):
        start = time.monotonic()
        ask = lambda seconds=seconds: vlm.generate(QUESTION, wait_seconds=seconds, max_new_tokens=500)  # noqa: E731
        thread, found = started(ask)
        thread.join(20)
        assert time.monotonic() - start >= least
        assert isinstance(found[0], CacheFullError)
        assert not isinstance(found[0], MemoryError)
        assert "holds 1024 positions, of which 320 are free" in str(found[0])
        assert "wait_seconds" in str(found[0])
        assert "cache_positions" in str(found[0])
    stream.close()
    assert vlm.generate(QUESTION, wait_seconds=0, max_new_tokens=500).token_ids
    for wrong in (-1, "1", float("nan"), True):
        with pytest.raises(ValueError, match="wait_seconds must be a number of at least 0"):
            vlm.generate(QUESTION, wait_seconds=wrong)


def test_what_can_never_be_held_is_refused_at_once(vlm: SmolVLM) -> None:
    with pytest.raises(CacheFullError, match=r"need 1088 positions .* holds 1024: lower max_new_.*cache_positions"):
        vlm.generate(QUESTION, max_new_tokens=1024)
    with pytest.raises(CacheFullError, match="prompt 2 of 2: the prompt of"):
        vlm.generate(["Hi", "word " * 300], max_new_tokens=4)
    results = vlm.generate(["Hi", "word " * 300, "Hello"], max_new_tokens=4, on_error="return")
    assert [type(result.error) for result in results] == [type(None), CacheFullError, type(None)]


@pytest.mark.parametrize("pictures", [True, False])
def test_a_list_that_is_too_much_is_answered_in_parts(vlm: SmolVLM, pictures: bool) -> None:
    prompts = [f"Question {number}?" for number in range(40)]
    images = [[Image.new("RGB", (64, 64), (n, 0, 0))] if pictures and n % 3 == 0 and n < 20 else [] for n in range(40)]
    results = vlm.generate(prompts, images=images, **LONG)
    for number, result in enumerate(results):
        alone = vlm.generate(prompts[number], images=images[number], **LONG)
        assert (result.token_ids, result.finish_reason) == (alone.token_ids, alone.finish_reason)


def test_clips_and_pictures_of_a_list_in_parts(vlm: SmolVLM) -> None:
    whole = SmolVLM.from_pretrained("demo", device="cpu", num_threads=1)
    frames = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    prompts = [f"Question {number}?" for number in range(12)]
    videos = [[frames[: number % 3 + 1]] if number % 4 == 0 else [] for number in range(12)]
    images = [[frames[number % 9]] if number % 4 == 1 else [] for number in range(12)]
    videos[9] = [frames[:2], frames[4:5]]
    for given in ({"videos": videos}, {"images": images}):
        found, expected = (model.generate(prompts, reuse=False, **given, **LONG) for model in (vlm, whole))
        assert [result.token_ids for result in found] == [result.token_ids for result in expected]
        assert [result.usage for result in found] == [result.usage for result in expected]


def test_parts_do_not_repeat_what_is_drawn(vlm: SmolVLM) -> None:
    ask: dict[str, Any] = {"do_sample": True, "temperature": 3.0, "seed": 5, **LONG}
    answers = [tuple(result.token_ids) for result in vlm.generate(["Hello"] * 24, **ask)]
    assert len(set(answers)) > 20
    assert answers == [tuple(result.token_ids) for result in vlm.generate(["Hello"] * 24, **ask)]
    with pytest.raises(ValueError, match="seed"):
        vlm.generate(["Hello"] * 24, **ask | {"seed": -1})


def test_a_thread_with_open_streams_does_not_block_itself(vlm: SmolVLM) -> None:
    stream = open_stream(vlm)
    waiting, found = started(lambda: vlm.generate(QUESTION, max_new_tokens=500))
    until(lambda: vlm.model.admission._waiting)
    assert vlm.generate("Hi", max_new_tokens=8).token_ids, "fits beside its stream, and goes ahead"
    assert found == []
    with pytest.raises(CacheFullError, match=r"its thread has open streams that hold 704.*close\(\)"):
        vlm.generate(QUESTION, max_new_tokens=500)
    stream.close()
    waiting.join(20)
    assert found[0].token_ids  # type: ignore[attr-defined]


def test_two_threads_that_wait_for_each_other_s_streams(vlm: SmolVLM) -> None:
    ready = threading.Barrier(2)

    def both() -> object:
        stream = open_stream(vlm, 400)
        ready.wait(20)
        try:
            return vlm.generate(QUESTION, max_new_tokens=500)
        finally:
            stream.close()

    threads = [started(both) for _ in range(2)]
    for thread, _ in threads:
        thread.join(20)
    kinds = sorted(type(found[0]).__name__ for _, found in threads)
    assert kinds == ["CacheFullError", "Result"]


def test_a_stream_that_waits_is_closed(vlm: SmolVLM) -> None:
    holder = open_stream(vlm)
    for _ in range(30):
        stream = vlm.stream(QUESTION, max_new_tokens=500)
        thread, found = started(lambda stream=stream: list(stream))
        until(lambda: vlm.model.admission._waiting)
        start = time.monotonic()
        stream.close()
        thread.join(20)
        assert time.monotonic() - start < 0.5
        assert found == [[]]
        assert stream.result.finish_reason == "cancelled"
    holder.close()


def test_dropped_streams_give_back(vlm: SmolVLM) -> None:
    for _ in range(5):
        open_stream(vlm)
    assert vlm.generate(QUESTION, max_new_tokens=600, wait_seconds=0).token_ids


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_the_waiting(vlm: SmolVLM) -> None:
    stop = threading.Event()
    taken = threading.Event()

    def hold() -> None:
        with open_stream(vlm):
            taken.set()
            stop.wait(20)

    thread, _ = started(hold)
    assert taken.wait(20)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            vlm.generate(QUESTION, max_new_tokens=500)
    finally:
        signal.signal(signal.SIGINT, before)
        stop.set()
        thread.join(20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_does_not_wait_for_threads_that_it_lacks(vlm: SmolVLM) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def pause(ids: object, scores: object) -> bool:
        inside.set()
        return go_on.wait(60)

    mine = open_stream(vlm, 100)
    ask: dict[str, Any] = {"max_new_tokens": 640, "reuse": False, "stopping_criteria": [pause]}
    working, found = started(lambda: vlm.generate("Hello", **ask))
    assert inside.wait(20)
    waiting, also = started(lambda: vlm.generate(QUESTION, max_new_tokens=500))
    until(lambda: vlm.model.admission._waiting)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        answered = bool(vlm.generate(QUESTION, max_new_tokens=600).token_ids) and bool("".join(mine))
        os._exit(0 if answered and vlm.model.admission._held == [] else 1)
    status = os.waitpid(child, 0)[1]
    go_on.set()
    for thread in (working, waiting):
        thread.join(20)
    mine.close()
    assert status == 0
    assert found
    assert also


def test_an_engine_without_a_loop_takes_pages_as_it_grows() -> None:
    model = NativeSmolVLM.from_pretrained("demo", cache_positions=128)
    one = NativeEngine(model, np.full((1, 60), 5), reuse=False)
    other = NativeEngine(model, np.full((1, 60), 6), reuse=False)
    one.prefill()
    other.prefill()
    for _ in range(4):
        one.step([5])
    with pytest.raises(CacheFullError, match="0 are free"):
        one.step([5])
    other.free()
    assert one.step([5]).shape[0] == 1
    one.free()
    assert model.logits(np.full(128, 5)).shape[0] == 128
