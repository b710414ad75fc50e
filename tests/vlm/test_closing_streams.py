"""`Stream.close()` from another thread, in each phase of a call, and two threads in one stream."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from faster_smolvlm import SmolVLM
from faster_smolvlm.vlm.answers import Stream
from PIL import Image


@pytest.fixture(scope="module")
def vlm() -> SmolVLM:
    return SmolVLM.from_pretrained("demo", device="cpu", num_threads=1)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (96, 128, 3), np.uint8))


def pages(vlm: SmolVLM) -> tuple[int, int]:
    free, total, _ = vlm.model.rust.cache_pages()
    return free, total


def in_thread(work: Callable[[], object]) -> None:
    """Run in another thread, and wait for its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def consumed(stream: Stream) -> tuple[list[str], list[BaseException]]:
    """Return the pieces, and what came instead of the end."""
    pieces: list[str] = []
    errors: list[BaseException] = []

    def consume() -> None:
        try:
            pieces.extend(stream)
        except BaseException as error:
            errors.append(error)

    in_thread(consume)
    return pieces, errors


@pytest.mark.parametrize("phase", ["vision", "prefill"])
@pytest.mark.parametrize("reuse", [False, True])
def test_a_stream_is_closed_before_its_first_token(vlm: SmolVLM, phase: str, reuse: bool) -> None:
    vlm.model.prefixes.clear()
    reached: list[int] = []
    pictures = [noise(seed) for seed in range(4 + 10 * reuse, 8 + 10 * reuse)]
    prompt = "What is in the pictures? " * 60

    def progress(done: int, todo: int) -> None:
        reached.append(done)
        vision_ends = done > todo / 2 and len(reached) > 4
        if not closed and (phase == "vision" or vision_ends):
            closed.append(done)
            in_thread(stream.close)

    closed: list[int] = []
    stream = vlm.stream(prompt, images=pictures, max_new_tokens=50, reuse=reuse, progress=progress)
    pieces, errors = consumed(stream)
    assert (pieces, errors) == ([], [])
    assert closed
    assert reached[-1] == closed[0], "no step was reported after the close"
    assert stream.result.finish_reason == "cancelled"
    assert stream.result.token_ids == []
    vlm.model.prefixes.clear()
    assert pages(vlm)[0] == pages(vlm)[1]


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 3}], ids=["greedy", "drawn"])
def test_a_stream_is_closed_in_the_middle_of_its_answer(vlm: SmolVLM, options: dict[str, object]) -> None:
    seen: list[int] = []

    def look(ids: np.ndarray, scores: object) -> bool:
        seen.append(ids.shape[1])
        if len(seen) == 7:
            in_thread(stream.close)
        return False

    length = {"min_new_tokens": 400, "max_new_tokens": 400}
    stream = vlm.stream("Hello", **length, reuse=False, stopping_criteria=[look], **options)
    _, errors = consumed(stream)
    assert errors == []
    assert stream.result.finish_reason == "cancelled"
    assert len(stream.result.token_ids) == 7
    assert list(stream) == []
    assert pages(vlm)[0] == pages(vlm)[1]


def test_closing_at_any_moment_ends_the_call(vlm: SmolVLM) -> None:
    for wait in np.linspace(0, 0.06, 25):
        stream = vlm.stream("Hello", images=noise(1), min_new_tokens=1500, max_new_tokens=1500, reuse=False)
        timer = threading.Timer(float(wait), stream.close)
        timer.start()
        _, errors = consumed(stream)
        timer.join()
        assert errors == []
        assert stream.result.finish_reason == "cancelled"
        assert len(stream.result.token_ids) < 1500
        assert pages(vlm)[0] == pages(vlm)[1]


def test_a_stream_that_never_began_and_one_between_two_pieces(vlm: SmolVLM) -> None:
    never = vlm.stream("Hello", reuse=False)
    in_thread(never.close)
    assert list(never) == []
    begun = vlm.stream("Hello", min_new_tokens=90, max_new_tokens=90, reuse=False)
    next(begun)
    assert pages(vlm)[0] < pages(vlm)[1]
    in_thread(begun.close)
    assert pages(vlm)[0] == pages(vlm)[1]
    in_thread(begun.close)
    assert list(begun) == []


def test_two_threads_cannot_iterate_at_once(vlm: SmolVLM) -> None:
    errors: list[BaseException] = []

    def look(ids: object, scores: object) -> bool:
        if not errors:
            errors.extend(consumed(stream)[1])
        return False

    stream = vlm.stream("Hello", min_new_tokens=5, max_new_tokens=5, stopping_criteria=[look])
    assert "".join(stream)
    (error,) = errors
    assert isinstance(error, RuntimeError)
    assert "one thread at a time" in str(error)
    assert stream.result.finish_reason == "length"
