"""What the native engine loads: packed weights on disk, and checkpoints and options that it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm.native import NativeSmolVLM
from safetensors.torch import load_file, save_file

from tests.helpers.native_models import Saved

Make = Callable[[str], Saved]
FC1 = "model.vision_model.encoder.layers.1.mlp.fc1.weight"


def test_packed_weights_are_kept_on_disk(random_model: Make, tmp_path: Any) -> None:
    """Equal results from the file; another dtype or other weights never meet it; damage is noticed and repaired."""
    saved = random_model("odd")
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "packed"
    checkpoint.mkdir()
    broken(saved, checkpoint, lambda tensors: None)
    ids = np.arange(3, 40)

    def load(**options: Any) -> tuple[str, np.ndarray]:
        model = NativeSmolVLM.from_pretrained(checkpoint, packed_cache_dir=folder, **options)
        return model.packed, model.logits(ids)

    plain = NativeSmolVLM.from_pretrained(checkpoint)
    assert plain.packed == "off"
    expected = plain.logits(ids)
    for outcome in ("written", "read"):
        packed, given = load()
        assert packed == outcome
        np.testing.assert_array_equal(given, expected)
    assert load(quantization="int8")[0] == "written"
    assert load(dtype="bfloat16")[0] == "written"
    assert len(list(folder.iterdir())) == 3

    file = max(folder.iterdir(), key=lambda path: path.stat().st_size)  # that of float32
    whole = file.read_bytes()
    for damage in (whole[:-5], whole[:999] + bytes([whole[999] ^ 1]) + whole[1000:]):
        file.write_bytes(damage)
        with pytest.warns(UserWarning, match="replaced"):
            packed, given = load()
        np.testing.assert_array_equal(given, expected)
        assert file.read_bytes() == whole

    broken(saved, checkpoint, lambda tensors: tensors["lm_head.weight"].mul_(2))
    packed, given = load()
    assert packed == "written"
    np.testing.assert_array_equal(given, 2 * expected)
    with pytest.warns(UserWarning, match="failed"):
        assert NativeSmolVLM.from_pretrained(checkpoint, packed_cache_dir=file).packed == "failed"


def broken(saved: Saved, directory: Any, change: Callable[[dict[str, torch.Tensor]], None]) -> Any:
    tensors = load_file(saved.directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text((saved.directory / "config.json").read_text())
    return directory


def test_bad_checkpoints_are_named(random_model: Make, tmp_path: Any) -> None:
    saved = random_model("odd")

    def refuse(error: type[Exception], message: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
        with pytest.raises(error, match=message):
            NativeSmolVLM.from_pretrained(broken(saved, tmp_path, change))

    def poison(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
        return lambda tensors: tensors[FC1][7, 3:4].fill_(value)

    refuse(ValueError, rf"{FC1} holds NaN or infinity in row 7", poison(float("nan")))
    refuse(ValueError, rf"{FC1} holds NaN or infinity in row 7", poison(float("-inf")))
    refuse(RuntimeError, r"1 missing: model\.text_model\.norm\.weight", lambda t: t.pop("model.text_model.norm.weight"))
    refuse(
        RuntimeError,
        r"lm_head.weight is \[131, 29\], expected \[131, 30\]",
        lambda t: t.update({"lm_head.weight": t["lm_head.weight"][:, :29].contiguous()}),
    )
    refuse(RuntimeError, f"{FC1} is I32", lambda t: t.update({FC1: t[FC1].int()}))
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(OSError, match="safetensors"):
        NativeSmolVLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {f"model.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {name: tensor.double() for name, tensor in tensors.items()},
    ],
    ids=["another prefix", "float64"],
)
def test_tensors_that_are_renamed_or_converted_give_the_same_logits(
    random_model: Make, tmp_path: Any, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    saved = random_model("odd")

    def changed(tensors: dict[str, torch.Tensor]) -> None:
        new = change(tensors)
        tensors.clear()
        tensors.update(new)

    directory = broken(saved, tmp_path, changed)
    model = NativeSmolVLM.from_pretrained(directory)
    ids = np.arange(3, 40)
    np.testing.assert_array_equal(model.logits(ids), NativeSmolVLM.from_pretrained(saved.directory).logits(ids))
    with pytest.warns(UserWarning, match="packed weights are not kept"):
        assert NativeSmolVLM.from_pretrained(directory, packed_cache_dir=tmp_path / "packed").packed == "off"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_threads": 0}, ValueError, "num_threads must be an integer of at least 1"),
        ({"num_threads": 5000}, ValueError, "num_threads must lie between 1 and 1024"),
        ({"dtype": "float16"}, ValueError, "dtype must be one of"),
        ({"quantization": "int3"}, ValueError, "quantization"),
        ({"cache_positions": 0}, ValueError, "cache_positions must be an integer of at least 1"),
        ({"cache_positions": 1 << 50}, MemoryError, "bytes of memory"),
        ({"feature_cache_bytes": -1}, ValueError, "feature_cache_bytes"),
        ({"prefix_cache_bytes": -1}, ValueError, "prefix_cache_bytes"),
    ],
)
def test_bad_options(random_model: Make, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NativeSmolVLM.from_pretrained(random_model("odd").directory, **options)


def test_another_architecture_and_settings_that_are_not_there(random_model: Make, tmp_path: Any) -> None:
    saved = random_model("odd")
    directory = broken(saved, tmp_path, lambda tensors: None)
    config = (saved.directory / "config.json").read_text()
    (directory / "config.json").write_text(config.replace('"silu"', '"relu"'))
    with pytest.raises(ValueError, match="hidden_act = 'silu' only"):
        NativeSmolVLM.from_pretrained(directory)
    (directory / "config.json").write_text(config.replace('"model_type": "smolvlm"', '"model_type": "llava"'))
    with pytest.raises(ValueError, match="llava"):
        NativeSmolVLM.from_pretrained(directory)


def test_no_torch_is_imported(random_model: Make) -> None:
    code = (
        "import sys, numpy as np\n"
        "from faster_smolvlm.native import NativeSmolVLM, NativeEngine\n"
        "engine = NativeEngine(NativeSmolVLM.from_pretrained(sys.argv[1]), np.array([[5, 6]]))\n"
        "engine.prefill()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code, str(random_model("odd").directory)], check=True)
