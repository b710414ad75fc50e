"""Every row of the table of families leads to classes that agree with it, and files lead to their row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faster_smolvlm.auto import family_of
from faster_smolvlm.checkpoint.hub import checkpoint
from faster_smolvlm.families import FAMILIES, Family, family_named
from faster_smolvlm.modeling.engines.known_modules import is_known
from faster_smolvlm.pixels.backends import BACKENDS, image_processor_class


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_a_row_is_what_its_classes_say(family: Family) -> None:
    config, model, processor = family.config_class(), family.model_class(), family.processor_class()
    assert config.model_type == processor.model_type == family.model_type
    assert model.config_class is config
    assert is_known(model), "generate of this class is never served by the native engine"
    assert ("video_processor" in processor.get_attributes()) == family.has_video
    suffixes = {"torchvision": "", "pil": "Pil"}
    for backend in BACKENDS:
        kind = image_processor_class(processor.image_processors, backend)
        assert kind.__name__ == f"{family.prefix}ImageProcessor{suffixes[backend]}"
        assert kind.backend == backend


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "smolvlm"),
        ({"config.json": {"model_type": "idefics3"}}, "idefics3"),
        ({"a.json": {"processor_class": "Idefics3Processor"}, "config.json": {"model_type": "smolvlm"}}, "idefics3"),
        ({"a.json": {"processor_class": None}, "config.json": {"model_type": "idefics3"}}, "idefics3"),
        ({"a.json": {"image_processor_type": "SmolVLMImageProcessor"}}, "smolvlm"),
        ({"config.json": {"model_type": "llava"}}, "smolvlm"),
    ],
)
def test_the_first_file_that_names_a_family_counts(tmp_path: Path, files: dict[str, object], expected: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert family_of(checkpoint(tmp_path), ("a.json", "b.json", "config.json")).model_type == expected


def test_the_longest_model_type_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    longer = Family("smolvlm9", "SmolVLM9", has_video=False)
    monkeypatch.setattr("faster_smolvlm.families.FAMILIES", (*FAMILIES, longer))
    assert family_named("SmolVLM9Processor") is longer
    assert family_named("SmolVLMProcessor") is FAMILIES[0]
