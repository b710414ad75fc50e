"""The bundled checkpoint under the names of SmolVLM and of Idefics3, and running a pipeline with and without us."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from faster_smolvlm.integrations.transformers import disable, enable
from PIL import Image

from tests.helpers.contract import Twice, as_idefics3

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def demo() -> Path:
    return Path(str(files("faster_smolvlm"))) / "demo"


@pytest.fixture(scope="session")
def idefics3_demo(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_idefics3(demo, tmp_path_factory.mktemp("idefics3") / "demo")


@pytest.fixture(scope="session")
def scene() -> Image.Image:
    return Image.open(ROOT / "examples" / "media" / "scene.png").convert("RGB")


@pytest.fixture
def twice(served: list[int]) -> Twice:
    """Run something as it is, then with `enable()` on, and return both results; only the second may use the core."""

    def run(pipeline: Callable[[], Any]) -> tuple[Any, Any]:
        served.clear()
        torch.manual_seed(0)
        plain = pipeline()
        assert not served, "the pipeline used the Rust core without being told to"
        torch.manual_seed(0)
        enable()
        try:
            fast = pipeline()
        finally:
            disable()
        assert served, "the pipeline did not use the Rust core"
        return plain, fast

    return run
