"""Where the files of a checkpoint come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from faster_smolvlm.checkpoint import hub


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    found = hub.checkpoint(tmp_path)
    assert found.find("config.json") == tmp_path / "config.json"
    assert found.find("tokenizer.json") is None
    with pytest.raises(OSError, match=r"does not have a file named 'tokenizer\.json'"):
        found.require("tokenizer.json")


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(OSError, match="is a file; pass the directory"):
        hub.checkpoint(path)


def test_unknown_keyword() -> None:
    with pytest.raises(TypeError, match="revison"):
        hub.checkpoint("owner/name", revison="main")


@pytest.mark.parametrize("name", ["no/such/place/at/all", "no such name"])
def test_neither_directory_nor_id(name: str) -> None:
    with pytest.raises(OSError, match="neither an existing directory nor a hub id"):
        hub.checkpoint(name).find("config.json")


def test_offline_and_not_cached(tmp_path: Path) -> None:
    missing = hub.checkpoint("owner/name", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(OSError, match=r"Cannot load 'config\.json' of 'owner/name'.*local_files_only=True"):
        missing.find("config.json")


def test_offline_with_an_optional_file_absent(tmp_path: Path) -> None:
    """A cached repository is usable offline although it never had some optional file."""
    repo = tmp_path / "models--owner--name"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    cached = hub.checkpoint("owner/name", cache_dir=tmp_path, local_files_only=True)
    assert cached.find("config.json") == snapshot / "config.json"
    assert cached.find("generation_config.json") is None
