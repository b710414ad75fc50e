"""Pipelines that others wrote, run as they are and with `enable()` on: the texts are equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from tests.helpers.contract import SERVED, Twice, answer, load, question


@pytest.mark.parametrize("folder", ["demo", "idefics3_demo"])
def test_transformers_pipeline(folder: str, scene: Image.Image, twice: Twice, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(folder)
    engines = []

    def run() -> Any:
        pipe = transformers.pipeline("image-text-to-text", model=str(checkpoint), dtype=torch.float32, device="cpu")
        answers = pipe(text=[question(image=scene), question("What colour is the square?", image=scene)],
                       max_new_tokens=24, return_full_text=False)  # fmt: skip
        engines.append(getattr(pipe.model, "generation_engine", None))
        return [row[0]["generated_text"] for row in answers]

    plain, fast = twice(run)
    assert fast == plain
    assert all(plain)
    assert engines[0] is None
    assert engines[1].name == SERVED


def engine_of_answers(twice: Twice, scene: Image.Image, loaded: Callable[[], tuple[Any, Any]]) -> Any:
    """Ask what is loaded, plain and with `enable()`, the same; the texts are equal. Return the engine of the latter."""
    engines = []

    def run() -> str:
        processor, model = loaded()
        text = answer(processor, model, scene)
        engines.append(getattr(model, "generation_engine", None))
        return text

    plain, fast = twice(run)
    assert fast == plain
    return engines[1]


@pytest.mark.parametrize("device_map", [{"": "cpu"}, "cpu", "auto"], ids=str)
def test_accelerate_device_map(device_map: Any, demo: Path, scene: Image.Image, twice: Twice) -> None:
    pytest.importorskip("accelerate")
    engine = engine_of_answers(twice, scene, lambda: load(demo, device_map=device_map))
    assert engine.name == SERVED


def test_accelerate_offload(demo: Path, scene: Image.Image, twice: Twice, tmp_path: Path) -> None:
    """Layers that wait on the disk come by hooks, which our engines do not run: Transformers answers."""
    pytest.importorskip("accelerate")
    places = {"model.vision_model": "cpu", "model.connector": "cpu", "model.text_model": "disk", "lm_head": "disk"}
    folders = (str(tmp_path / name) for name in ("plain", "fast"))
    engine = engine_of_answers(twice, scene, lambda: load(demo, device_map=places, offload_folder=next(folders)))
    assert engine.name == "transformers"
    assert "meta" in engine.reason


def _torchao() -> dict[str, Any]:
    quantization = pytest.importorskip("torchao.quantization")
    return {"quantization_config": transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())}


def _quanto() -> dict[str, Any]:
    pytest.importorskip("optimum.quanto")
    return {"quantization_config": transformers.QuantoConfig(weights="int8")}


@pytest.mark.parametrize("options", [_torchao, _quanto])
def test_quantised_weights(options: Callable[[], Any], demo: Path, scene: Image.Image, twice: Twice) -> None:
    """What Transformers quantises on a CPU without bitsandbytes is not our engine's, so Transformers answers."""
    pytest.importorskip("accelerate")
    engine = engine_of_answers(twice, scene, lambda: load(demo, **options()))
    assert engine.name == "transformers"
    assert "is a" in engine.reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dynamic_quantisation(demo: Path, scene: Image.Image, twice: Twice) -> None:
    models = []

    def run() -> str:
        processor, model = load(demo)
        quantize = torch.ao.quantization.quantize_dynamic
        models.append(quantize(model, {torch.nn.Linear}, dtype=torch.qint8))
        return answer(processor, models[-1], scene)

    plain, fast = twice(run)
    assert fast == plain
    assert models[1].generation_engine.name == "transformers"


def test_smolagents(demo: Path, scene: Image.Image, twice: Twice) -> None:
    smolagents = pytest.importorskip("smolagents")
    pytest.importorskip("accelerate")
    engines = []

    def run() -> tuple[str, str]:
        model = smolagents.TransformersModel(model_id=str(demo), device_map="cpu", max_new_tokens=12)
        message = {"role": "user", "content": [*question(image=scene)[0]["content"]]}
        asked = [smolagents.ChatMessage.from_dict(message)]
        said = str(model.generate(asked).content)
        streamed = "".join(delta.content or "" for delta in model.generate_stream(asked))
        engines.append(getattr(model.model, "generation_engine", None))
        return said, streamed

    plain, fast = twice(run)
    assert fast == plain
    assert all(plain)
    assert engines[1].name == SERVED
