"""Fixtures of models that several rooms use.

What is heavy is imported inside them: this module is loaded before the kernels' tests choose Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.native_models import Saved
    from tests.helpers.tiny_models import Batch, Pair


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.tiny_models import save_theirs, tiny_config

    directory = tmp_path_factory.mktemp("tiny")
    save_theirs(tiny_config(), directory)
    return directory


@pytest.fixture(scope="session")
def _tiny(tiny_dir: Path) -> Pair:
    import transformers
    from faster_smolvlm import SmolVLMForConditionalGeneration

    from tests.helpers.tiny_models import Pair

    theirs = transformers.SmolVLMForConditionalGeneration.from_pretrained(tiny_dir)
    return Pair(theirs.eval(), SmolVLMForConditionalGeneration.from_pretrained(tiny_dir), tiny_dir)


@pytest.fixture
def tiny(_tiny: Pair) -> Iterator[Pair]:
    yield _tiny.use("sdpa")
    _tiny.use("sdpa")


@pytest.fixture
def batch() -> Batch:
    from tests.helpers.tiny_models import two_rows

    return two_rows()


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """Return a function that gives the saved random model of a name; see `save_random`."""
    from tests.helpers.native_models import save_random

    made: dict[str, Saved] = {}

    def make(name: str) -> Saved:
        if name not in made:
            made[name] = save_random(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much on busy cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(threads if "real_size" in request.keywords else 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run without gradients, unless the test is marked to need them."""
    import torch

    with torch.set_grad_enabled("gradients" in request.keywords):
        yield
