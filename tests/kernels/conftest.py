"""Kernels run in Triton's interpreter here: the switch is read when a kernel is defined, so it is set before any
import.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

os.environ["TRITON_INTERPRET"] = "1"

import torch

collect_ignore_glob: list[str] = []
try:
    import triton  # noqa: F401
except ModuleNotFoundError:
    collect_ignore_glob.append("test_*.py")
else:
    from tests.helpers import interpreter_fixes
    from tests.helpers.kernel_checks import Guard

    interpreter_fixes.install()
    interpreter_fixes.self_test()


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    """Guarded memory: for the tensors a test makes with it, and for whatever a launcher allocates."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    guard = Guard()

    def empty(*shape, dtype=torch.float32, device="cpu", **_):
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return guard.empty(*shape, dtype=dtype)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", empty)
        patch.setattr(torch, "empty_like", lambda x, **_: guard.empty(*x.shape, dtype=x.dtype))
        yield guard
    guard.check()


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decode graph that has used up its capacity after a few tokens."""
    from faster_smolvlm.modeling.engines import decode_graph, graph

    for module in (decode_graph, graph):
        monkeypatch.setattr(module, "BUCKETS", (8, 16, 32))
    monkeypatch.setattr(graph, "FIRST_CAPACITY", 2)
    monkeypatch.setattr(graph, "_BLOCK", 3)


@pytest.fixture
def mutant(tmp_path: Path) -> Callable[[str, str, str], ModuleType]:
    """Return a function that loads a kernel's module with one piece of its source replaced: a planted fault."""

    def load(name: str, old: str, new: str) -> ModuleType:
        import faster_smolvlm.kernels.launch as neighbour

        source = Path(neighbour.__file__).with_name(f"{name}.py").read_text()
        assert source.count(old) == 1, f"{name}.py has {source.count(old)} places that read {old!r}"
        path = tmp_path / f"{name}.py"
        path.write_text(source.replace(old, new))
        spec = importlib.util.spec_from_file_location(f"faster_smolvlm.kernels.mutant_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def caught(guard: Guard) -> Callable[[str], AbstractContextManager[None]]:
    """Return a context in which a comparison, or the look at the margins after it, must fail with a message."""

    @contextmanager
    def expect(message: str) -> Iterator[None]:
        with pytest.raises(AssertionError, match=message):  # noqa: PT012 either of the two may find it
            yield
            guard.check()
        guard.buffers.clear()
        guard.inputs.clear()

    return expect


@pytest.fixture(autouse=True)
def torch_engine(monkeypatch):
    """On a CPU `generate` would take the native engine; what is tested here is the torch one."""
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
