"""Hundreds of requests at once on one `SmolVLM` of a real size, and calls that are cancelled in each of their phases.

Weights are random, configuration and tokenizer real: `--model` is a folder with the files of SmolVLM2-256M, weights not
needed. All answers have to equal those of the same requests one by one; after each part the cache has to be free.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from faster_smolvlm import NativeSmolVLM, SmolVLM, SmolVLMConfig, SmolVLMProcessor
from faster_smolvlm.native.random_weights import random_tensors
from faster_smolvlm.vlm.answers import Stream
from PIL import Image

PHASES = ("unstarted", "waiting", "decode", "vision", "prefill")


def load(options: argparse.Namespace) -> SmolVLM:
    """Return the model that is asked for."""
    if options.model == "demo":
        return SmolVLM.from_pretrained("demo", device="cpu", num_threads=options.threads)
    config = SmolVLMConfig.from_pretrained(options.model)
    model = NativeSmolVLM(random_tensors(config), config, dtype="bfloat16", num_threads=options.threads)
    return SmolVLM(model, SmolVLMProcessor.from_pretrained(options.model))


def picture(seed: int) -> Image.Image:
    """Return noise that no other seed gives."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (96, 128, 3), np.uint8))


def check_free(vlm: SmolVLM) -> None:
    """Fail unless all pages are free once nothing is kept."""
    vlm.model.prefixes.clear()
    free, pages, _ = vlm.model.rust.cache_pages()
    assert free == pages, f"{pages - free} of {pages} pages are lost"


def at_once(vlm: SmolVLM, options: argparse.Namespace) -> None:
    """Ask one by one, then all at once."""

    def one(number: int) -> list[int]:
        ask: dict[str, Any] = {"do_image_splitting": False, "max_new_tokens": options.tokens}
        ask |= {"min_new_tokens": options.tokens, "reuse": number % 2 > 0}
        filler = "word " * options.words
        images = [picture(number)] if number % options.every == 0 else []
        return vlm.generate(f"{filler}What is {number}?", images=images, **ask).token_ids

    begin = time.perf_counter()
    expected = [one(number) for number in range(options.requests)]
    alone = time.perf_counter() - begin
    vlm.model.prefixes.clear()
    vlm.model.features.clear()
    _, pages, size = vlm.model.rust.cache_pages()
    most = [0]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], len(vlm.model.admission._waiting))

    watcher = threading.Thread(target=look)
    watcher.start()
    begin = time.perf_counter()
    with ThreadPoolExecutor(options.requests) as pool:
        found = list(pool.map(one, range(options.requests)))
    together = time.perf_counter() - begin
    stop.set()
    watcher.join()
    equal = sum(a == b for a, b in zip(found, expected, strict=True))
    print(
        f"{options.requests} requests, cache of {pages * size} positions: one by one {alone:.1f} s, at once "
        f"{together:.1f} s, {equal} equal, {most[0]} waited at most",
        flush=True,
    )
    assert found == expected
    check_free(vlm)


def cancelled(vlm: SmolVLM, phase: str, seed: int) -> tuple[float, float]:
    """Close a stream from another thread in a phase: the seconds until it ended, and those of a step of that phase."""
    reached, times = threading.Event(), []

    def progress(done: int, todo: int) -> None:
        times.append(time.perf_counter())
        if phase == "vision" or (phase == "prefill" and done > todo / 2):
            reached.set()

    def criterion(ids: object, scores: object) -> bool:
        times.append(time.perf_counter())
        if phase == "decode" and len(times) > 4:
            reached.set()
        return False

    ask: dict[str, Any] = {"do_image_splitting": False, "reuse": seed % 2 > 0, "max_new_tokens": 400}
    ask |= {"min_new_tokens": 400, "progress": progress, "stopping_criteria": [criterion]}
    words = "word " * (330 if phase == "prefill" else 5)
    pictures = [picture(seed * 4 + number) for number in range(4 if phase == "vision" else 1)]
    holder: Stream | None = None
    if phase == "waiting":
        limit = vlm.model.position_limit
        ask["max_new_tokens"] = limit - 1000
        holder = vlm.stream("Hello", max_new_tokens=limit - 100)
        next(holder)
        second = vlm.stream("Hello", max_new_tokens=limit - 100)
        next(second)
    begin = time.perf_counter()
    stream = vlm.stream(words, images=pictures, **ask)
    if phase == "unstarted":  # pictures are read already
        stream.close()
    ended: list[float] = []

    def consume() -> None:
        for _ in stream:
            pass
        ended.append(time.perf_counter())

    thread = threading.Thread(target=consume)
    thread.start()
    if phase == "waiting":
        while not vlm.model.admission._waiting:
            time.sleep(0.0005)
    elif phase != "unstarted":
        assert reached.wait(60)
    closed = time.perf_counter()
    stream.close()
    thread.join(60)
    assert not thread.is_alive()
    assert stream.result.finish_reason == "cancelled"
    late = [moment for moment in times if moment > closed]
    assert len(late) <= 1, f"{phase}: {len(late)} steps after the close"
    if holder is not None:
        holder.close()
        second.close()
    steps = np.diff([begin, *times])
    return max(ended[0] - closed, 0.0), float(max(steps, default=0.0))


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--words", type=int, default=100)
    parser.add_argument("--every", type=int, default=10, help="each so many-th request has a picture")
    parser.add_argument("--cancels", type=int, default=200, help="in each phase")
    options = parser.parse_args()
    vlm = load(options)
    for phase in PHASES if options.cancels else ():
        found = [cancelled(vlm, phase, seed) for seed in range(options.cancels)]
        check_free(vlm)
        waits = sorted(seconds for seconds, _ in found)
        print(
            f"{phase}: {len(found)} cancelled, ended after {statistics.median(waits) * 1e3:.1f} ms (median), "
            f"{waits[-1] * 1e3:.1f} ms at most; longest step {max(step for _, step in found) * 1e3:.1f} ms",
            flush=True,
        )
    if options.requests:
        at_once(vlm, options)


if __name__ == "__main__":
    main()
