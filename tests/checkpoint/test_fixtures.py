"""The written configurations say what the real ones say; needs the real test data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from faster_smolvlm import GenerationConfig, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMVideoProcessor
from faster_smolvlm.checkpoint.json_files import read_json
from faster_smolvlm.text.chat_template import render

from tests.helpers.checkpoints import WRITTEN

TEXT, IMAGE = {"type": "text", "text": "What is\n this? "}, {"type": "image"}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": [TEXT]}],
    [{"role": "user", "content": [IMAGE, TEXT]}],
    [{"role": "user", "content": [TEXT, IMAGE, TEXT, IMAGE]}, ANSWER, {"role": "user", "content": [TEXT]}],
    [{"role": "SYSTEM", "content": [TEXT]}, {"role": "user", "content": [IMAGE, IMAGE, {"type": "audio"}]}],
]


@pytest.fixture(params=["256m", "500m"])
def pair(request: pytest.FixtureRequest, data_dir: Path) -> tuple[Path, Path]:
    """The folder of the repository, and that of the test data."""
    return WRITTEN / f"smolvlm-{request.param}", data_dir / f"smolvlm2-{request.param}-config"


def differences(written: Any, real: Any, path: str = "") -> list[str]:
    """Return what is written and not in the real file, or not with the same value."""
    if isinstance(written, dict) and isinstance(real, dict):
        return [
            difference
            for name, value in written.items()
            for difference in differences(value, real.get(name, "nothing"), f"{path}.{name}")
        ]
    return [] if written == real else [f"{path}: {written!r}, really {real!r}"]


@pytest.mark.parametrize("name", ["config", "generation_config", "preprocessor_config", "processor_config"])
def test_nothing_is_written_that_the_real_file_does_not_say(name: str, pair: tuple[Path, Path]) -> None:
    written, real = (read_json(folder / f"{name}.json") for folder in pair)
    assert written
    assert differences(written, real) == []


def test_every_field_that_is_read_is_equal(pair: tuple[Path, Path]) -> None:
    written, real = (SmolVLMConfig.from_pretrained(folder) for folder in pair)
    parts = [(getattr(written, name), getattr(real, name)) for name in ("text_config", "vision_config")]
    for ours, theirs in ((written, real), *parts):
        for name in set(type(ours)._hints) - {"text_config", "vision_config", "architectures"}:
            assert getattr(ours, name) == getattr(theirs, name), name
    assert written.architectures == real.architectures
    ids = [GenerationConfig.from_pretrained(folder) for folder in pair]
    assert ids[0].eos_ids == ids[1].eos_ids
    for kind in (SmolVLMImageProcessor, SmolVLMVideoProcessor):
        ours, theirs = (kind.from_pretrained(folder) for folder in pair)
        assert ours.to_dict() == theirs.to_dict()


def test_chat_templates_render_the_same(pair: tuple[Path, Path]) -> None:
    written, real = (json.loads((folder / "chat_template.json").read_text())["chat_template"] for folder in pair)
    for prompt in (False, True):
        expected = render(CONVERSATIONS, real, add_generation_prompt=prompt)
        assert render(CONVERSATIONS, written, add_generation_prompt=prompt) == expected


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in WRITTEN.rglob("*")) < 40_000
    assert not [path for path in WRITTEN.rglob("*") if "vocab" in path.name or "tokenizer" in path.name]
