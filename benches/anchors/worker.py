"""One engine with one precision in a process of its own, which sleeps until it is asked.

So the threads of one engine cannot disturb another, and none takes memory before its first work.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from .side import Run, Settings, Side

SETTLE = 0.05
"""Seconds between the works of two processes; by then the spinning threads of the first are asleep."""


@dataclass(frozen=True)
class Engine:
    """Where an engine is found, the packages it needs, its precisions and what it can do."""

    name: str
    module: str
    side: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    works: tuple[str, ...]

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


class Worker:
    """The process of one side. Errors in it are raised here."""

    def __init__(self, engine: Engine, precision: str, settings: Settings) -> None:
        self.name = f"{engine.name} {precision}"
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # read when the process starts
        self._process = context.Process(target=_serve, args=(theirs, engine, precision, settings), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def process(self) -> int:
        """The id of the process."""
        pid = self._process.pid
        if pid is None:
            raise RuntimeError(f"The process of {self.name} was never started.")
        return pid

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the side and return its result."""
        return self._ask("call", method, arguments)

    def prepare(self, work: str, method: str, *arguments: Any) -> None:
        """Let the side load what a method needs, which makes the work that `run` knows by this name."""
        self._ask("prepare", method, (work, *arguments))

    def run(self, work: str) -> float:
        """Do the prepared work once; return its seconds."""
        seconds: float = self._ask("run", work, ())
        return seconds

    def settle(self) -> None:
        """Wait until the process that worked before is asleep."""
        time.sleep(SETTLE)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, kind: str, name: str, arguments: tuple[Any, ...]) -> Any:
        try:
            self._connection.send((kind, name, arguments))
            failed, result = self._connection.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"The process of {self.name} died.") from error
        if failed:
            raise RuntimeError(f"{self.name}: {result}")
        return result


def versions(engine: Engine) -> str:
    """Return the packages of an engine with their versions; imports them."""
    found = []
    for name in engine.packages:
        package = importlib.import_module(name)
        found.append(f"{name} {str(package.__version__).split('-')[0]}")
    return ", ".join(found)


def _serve(connection: Connection, engine: Engine, precision: str, settings: Settings) -> None:
    side: Side | None = None
    runs: dict[str, Run] = {}
    while True:
        try:
            kind, name, arguments = connection.recv()
        except EOFError:
            return
        try:
            if side is None:
                side = getattr(importlib.import_module(f".{engine.module}", __package__), engine.side)(
                    settings, precision
                )
            result: Any = None
            if kind == "prepare":
                runs[arguments[0]] = getattr(side, name)(*arguments[1:])
            elif kind == "run":
                result = runs[name]()
            elif name == "versions":
                result = versions(engine)
            else:
                method: Callable[..., Any] = getattr(side, name)
                result = method(*arguments)
            connection.send((False, result))
        except Exception:
            connection.send((True, traceback.format_exc(limit=-4)))
