"""`SmolVLM` loads the family that a checkpoint names, on both engines, and gives it a processor that takes clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import faster_smolvlm
import numpy as np
import pytest
from faster_smolvlm import Idefics3Config, SmolVLM

DEMO = Path(faster_smolvlm.__file__).parent / "demo"


@pytest.fixture(scope="module")
def idefics3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo checkpoint under the name of the family that SmolVLM inherits its architecture from."""
    folder = tmp_path_factory.mktemp("idefics3")
    shutil.copytree(DEMO, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "idefics3"
    config["vision_config"]["model_type"] = "idefics3_vision"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_idefics3(idefics3: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", engine)
    loaded, demo = (SmolVLM.from_pretrained(name, device="cpu") for name in (idefics3, "demo"))
    assert loaded.engine == engine
    assert isinstance(loaded.model.config, Idefics3Config)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    for media in ({"images": [pixels[0]]}, {"videos": [pixels]}):
        given, expected = (vlm.generate("What is it?", **media, max_new_tokens=8) for vlm in (loaded, demo))
        assert given.token_ids == expected.token_ids


def test_a_config_of_another_model_is_refused(idefics3: Path, tmp_path: Path) -> None:
    shutil.copytree(idefics3, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    with pytest.raises(ValueError, match="llava"):
        SmolVLM.from_pretrained(tmp_path, device="cpu")
