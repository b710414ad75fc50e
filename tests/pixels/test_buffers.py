"""Output memory is used again, and never while anything can still see it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import SmolVLMImageProcessor, _rust

SHAPE = (4, 3, 256, 256)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.fixture(autouse=True)
def empty_pool() -> None:
    gc.collect()
    _rust.pool_trim()


def test_memory_is_used_again() -> None:
    first = _rust.empty(SHAPE, "float32")
    assert first.shape == SHAPE
    assert first.dtype == np.float32
    assert first.flags.writeable
    assert address(first) % 64 == 0
    where = address(first)
    del first
    assert _rust.pool_waiting() > 0
    assert address(_rust.empty(SHAPE, "float32")) == where
    _rust.pool_trim()
    assert _rust.pool_waiting() == 0


VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "view": lambda array: array[1:, :, ::2],
    "reshaped": lambda array: array.reshape(-1)[-1:],
    "memoryview": lambda array: memoryview(array.reshape(-1)),
    "tensor": lambda array: torch.from_numpy(array),
    "view of a tensor": lambda array: torch.from_numpy(array)[2].permute(1, 2, 0),
    "array of a tensor": lambda array: torch.from_numpy(array)[0].numpy(),
    "DLPack from NumPy": lambda array: torch.from_dlpack(array),
    "DLPack from torch": lambda array: np.from_dlpack(torch.from_numpy(array)),
    "capsule": lambda array: torch.utils.dlpack.to_dlpack(torch.from_numpy(array)),
    "storage": lambda array: torch.from_numpy(array).untyped_storage(),
}


@pytest.mark.parametrize("kind", list(VIEWS))
def test_a_view_keeps_its_memory(kind: str) -> None:
    array = _rust.empty(SHAPE, "float32")
    array[:] = 7
    where = address(array)
    view = VIEWS[kind](array)
    del array
    gc.collect()
    others = [_rust.empty(SHAPE, "float32") for _ in range(3)]
    for other in others:
        assert address(other) != where
        other[:] = 1
    if isinstance(view, (np.ndarray, torch.Tensor)):
        assert bool((view == 7).all())
    del view, others, other
    gc.collect()
    held = [_rust.empty(SHAPE, "float32") for _ in range(4)]
    assert where in {address(array) for array in held}


def test_results_of_calls_do_not_share_memory() -> None:
    processor = SmolVLMImageProcessor(size={"longest_edge": 256}, max_image_size={"longest_edge": 64})
    images = [np.full((40, 60, 3), value, np.uint8) for value in (0, 255)]
    black, white = (processor(image, return_tensors="pt") for image in images)
    assert bool((black["pixel_values"] == -1).all())
    assert bool((white["pixel_values"] == 1).all())
    black["pixel_attention_mask"].zero_()
    del white
    again = processor(images[1], return_tensors="pt")
    assert bool((again["pixel_attention_mask"] == 1).all())
    assert bool((black["pixel_attention_mask"] == 0).all())
    assert bool((black["pixel_values"] == -1).all())


def test_pickling_copies() -> None:
    array = _rust.empty(SHAPE, "int64")
    array[:] = 5
    copied = pickle.loads(pickle.dumps(array))
    del array
    _rust.empty(SHAPE, "int64")[:] = 6
    assert (copied == 5).all()


def test_threads_never_see_each_other() -> None:
    failures: list[int] = []

    def work(value: int) -> None:
        for _ in range(50):
            array = _rust.empty((1, 3, 128, 128), "float32")
            array[:] = value
            if not (array == value).all():
                failures.append(value)
            del array

    threads = [threading.Thread(target=work, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _sum_of_white(_: int) -> float:
    processor = SmolVLMImageProcessor(size={"longest_edge": 256}, max_image_size={"longest_edge": 64})
    image = np.full((40, 60, 3), 255, np.uint8)
    return float(processor([image] * 4, return_tensors="np")["pixel_values"].mean())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process")
def test_child_processes(method: str) -> None:
    assert _sum_of_white(0) == 1.0  # the pools of the parent exist
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(_sum_of_white, range(4)).get(timeout=120) == [1.0] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_copies() -> None:
    array = _rust.empty(SHAPE, "float32")
    array[:] = 3
    child = os.fork()
    if child == 0:
        array[:] = 4
        del array
        _rust.empty(SHAPE, "float32")[:] = 5
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (array == 3).all()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="dtype must be"):
        _rust.empty((2,), "float64")
    with pytest.raises(MemoryError):
        _rust.empty((1 << 40, 1 << 40), "float32")
    with pytest.raises(ValueError, match="the output holds"):
        _rust.fill_mask(_rust.empty((2, 3, 4, 5), "int64"), [1])
