"""The bundled checkpoint under the names of SmolVLM and of Idefics3, and running a pipeline with and without us."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def demo() -> Path:
    return Path(str(files("faster_smolvlm"))) / "demo"


@pytest.fixture(scope="session")
def idefics3_demo(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint as SmolVLM v1, SmolDocling and ColSmol lay theirs out."""
    folder = tmp_path_factory.mktemp("idefics3") / "demo"
    shutil.copytree(demo, folder)
    for path in folder.glob("*config.json"):
        values = json.loads(path.read_text())
        values.pop("video_processor", None)
        values.pop("video_sampling", None)
        text = json.dumps(values).replace("SmolVLM", "Idefics3").replace('"smolvlm', '"idefics3')
        path.write_text(text)
    return folder


def same(fast: Any, plain: Any) -> None:
    """Equal keys, shapes, dtypes and values; pixels to one unit of rounding."""
    assert list(fast) == list(plain)
    for name in plain:
        torch.testing.assert_close(fast[name], plain[name], rtol=0, atol=1e-6)
