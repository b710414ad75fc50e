"""What the decode graph needs of a GPU besides its kernels: capturing launches, and waiting for another stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

import torch

_capturing = threading.Lock()
"""Held while anything is captured: what one capture does to a device (it waits for all of it) breaks another."""


class CaptureError(RuntimeError):
    """The step could not be captured: the driver, the memory or what else runs on the device did not allow it."""


class Capture(Protocol):
    """Turns launches into something that repeats exactly them."""

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run `run`, maybe several times, and return what replays its launches with the arguments they had."""


class CudaCapture:
    """Captures CUDA graphs on a stream of its own, one at a time in the process.

    Other threads may go on using the device: the capture looks at this thread's calls alone.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run once beside the stream, so that every kernel is compiled, then capture."""
        with _capturing, torch.cuda.device(self._device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                run()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                run()
            torch.cuda.current_stream().wait_stream(side)
        replay: Callable[[], None] = graph.replay
        return replay


def persistent() -> AbstractContextManager[object]:
    """Make tensors that outlive a call: they can be written to in every later mode, whatever mode this call is in.

    A tensor made in `torch.inference_mode()` could not be written to outside it.
    """
    modes = ExitStack()
    modes.enter_context(torch.inference_mode(False))
    modes.enter_context(torch.no_grad())
    return modes


def mark(device: torch.device) -> Callable[[], None]:
    """Mark the end of what the current stream of `device` has been given; return what makes a stream wait for it."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return lambda: torch.cuda.current_stream(device).wait_event(event)


def failures() -> tuple[type[Exception], ...]:
    """Return what a launch or a capture raises if driver, compiler or memory refuse it."""
    from triton.errors import TritonError

    return RuntimeError, ValueError, TritonError
