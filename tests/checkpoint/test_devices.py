"""Names of devices, files that may not be read, and folders that hold an adapter."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import faster_smolvlm
import pytest
import torch
from faster_smolvlm import AutoModelForImageTextToText, SmolVLM
from faster_smolvlm.checkpoint.devices import device_name

DEMO = Path(faster_smolvlm.__file__).parent / "demo"
WRONG: list[Any] = ["cud a", "", "0", "cpu:1", "meta", -1, None, 5.5, True, torch.device("meta"), ["cpu"], "x" * 9999]


def test_names() -> None:
    for cpu in ("cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)):
        assert device_name(cpu) == "cpu"
    for gpu in (1, "cuda:1", torch.device("cuda", 1), torch.tensor(1)):
        assert device_name(gpu) == "cuda:1"
    assert [device_name(name) for name in ("auto", "cuda", "mps")] == ["auto", "cuda", "mps"]


@pytest.mark.parametrize("device", WRONG)
def test_what_is_no_device(device: Any) -> None:
    with pytest.raises(ValueError, match="device has to be") as caught:
        device_name(device)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("device", ["cpu:0", torch.device("cpu", 0), "cpu"])
def test_the_first_cpu_is_the_cpu_and_keeps_the_native_engine(device: Any) -> None:
    assert SmolVLM.from_pretrained("demo", device=device).engine == "native"
    for given in (device, {"": device}):
        assert AutoModelForImageTextToText.from_pretrained("demo", device_map=given).device.type == "cpu"


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("nodevice", "cuda:99", 99):
        for load in (SmolVLM.from_pretrained, AutoModelForImageTextToText.from_pretrained):
            with pytest.raises(ValueError, match=r"device .* is not available"):
                load("demo", device=device)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_files_that_may_not_be_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "model"))
    real = io.open

    def guarded(file: Any, *args: Any, **options: Any) -> Any:  # tests may run as root, who may read all
        if str(file) == str(folder / name):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **options)

    monkeypatch.setattr(io, "open", guarded)
    with pytest.raises(PermissionError, match=name):
        SmolVLM.from_pretrained(folder)


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    for load in (SmolVLM.from_pretrained, AutoModelForImageTextToText.from_pretrained):
        with pytest.raises(OSError, match=r"is an adapter of peft.*'owner/base'"):
            load(tmp_path)
    (tmp_path / "config.json").write_text((DEMO / "config.json").read_text())
    with pytest.raises(OSError, match="is an adapter of peft"):
        AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_a_prompt_too_long_is_one_error(caplog: pytest.LogCaptureFixture) -> None:
    vlm = SmolVLM.from_pretrained("demo")
    with pytest.raises(ValueError, match="1 to 2048 are possible"):
        vlm.generate("hello world " * 4000)
    assert not caplog.records
    with pytest.raises(TypeError, match="tokenizer of its processor"):
        vlm.generate("hello", stop_strings="e", tokenizer=vlm.processor.tokenizer)
