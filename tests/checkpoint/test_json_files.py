"""The one reader of JSON files, and the hub arguments that every `from_pretrained` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faster_smolvlm import (
    GenerationConfig,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMVideoProcessor,
)
from faster_smolvlm.checkpoint import hub
from faster_smolvlm.checkpoint.hub import HubOptions, split_hub_options
from faster_smolvlm.checkpoint.json_files import json_text, read_json, read_optional_json
from faster_smolvlm.text.tokenization_smolvlm import SmolVLMTokenizer

DEMO = Path(hub.__file__).parents[1] / "demo"
READERS: dict[str, Callable[..., Any]] = {
    "config.json": SmolVLMConfig.from_pretrained,
    "generation_config.json": GenerationConfig.from_pretrained,
    "preprocessor_config.json": SmolVLMImageProcessor.from_pretrained,
    "video_preprocessor_config.json": SmolVLMVideoProcessor.from_pretrained,
    "tokenizer_config.json": SmolVLMTokenizer.from_pretrained,
}


@pytest.mark.parametrize("content", [b"{", b"\xff", b""])
def test_what_is_no_json_is_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"x\.json' is not (a valid JSON file|UTF-8 text)"):
        read_json(path)


@pytest.mark.parametrize(("content", "kind"), [("[1]", "list"), ("null", "NoneType"), ("1", "int")])
def test_what_is_no_object_is_an_error_that_names_the_file(content: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(OSError, match=rf"x\.json' must hold a JSON object, but it holds a {kind}"):
        read_json(path)


def test_no_file_is_an_empty_object(tmp_path: Path) -> None:
    assert read_optional_json(None) == {}
    (tmp_path / "x.json").write_text(json_text({"b": 1, "a": [2]}))
    assert read_optional_json(tmp_path / "x.json") == {"a": [2], "b": 1}


@pytest.mark.parametrize("name", READERS)
def test_every_class_says_the_same_of_a_broken_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((DEMO / "tokenizer.json").read_bytes())
    (tmp_path / name).write_text("[]")
    with pytest.raises(OSError, match=rf"{name}' must hold a JSON object, but it holds a list"):
        READERS[name](tmp_path)


def test_hub_arguments_are_parted_from_the_others() -> None:
    given = {"revision": "main", "size": 3, "local_files_only": True}
    assert split_hub_options(given) == ({"revision": "main", "local_files_only": True}, {"size": 3})
    assert given == {"revision": "main", "size": 3, "local_files_only": True}
    assert set(HubOptions.__annotations__) == {"revision", "token", "cache_dir", "local_files_only"}


@pytest.mark.parametrize("read", READERS.values())
def test_every_class_passes_the_hub_arguments_on(
    read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, filename: str, **options: Any) -> str:
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    given = {"revision": "v1", "token": "t", "cache_dir": tmp_path, "local_files_only": True}
    with pytest.raises(KeyboardInterrupt):
        read("owner/name", **given)
    assert asked == given
