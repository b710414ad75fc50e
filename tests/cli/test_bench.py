"""`faster-smolvlm bench`: the parts of an answer, beside what the machine can do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faster_smolvlm import SmolVLMConfig, SmolVLMForConditionalGeneration, cli
from faster_smolvlm.cli.bench import photograph
from faster_smolvlm.native.random_weights import random_tensors

from tests.helpers.native_models import DEMO_DIRECTORY

QUICK = ("bench", "--rounds", "1", "--tokens", "3", "--threads", "1")


@pytest.mark.parametrize("model", [("demo",), (str(DEMO_DIRECTORY), "--random-weights", "--quantization", "int8")])
def test_all_parts_are_measured(model: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(photograph())
    assert cli.main([*QUICK, "--picture", str(picture), "--json", "--model", *model]) == 0
    record = json.loads(capsys.readouterr().out)
    parts = ("load", "image_decode", "preprocessing", "vision", "prefill", "per_token")
    assert all(record[part] > 0 for part in parts)
    assert record["second_question_to_first_token"] < record["vision"] + record["prefill"]
    assert record["frames"] > 1
    assert record["num_threads"] == 1
    assert record["dtype"] == ("int8" if "int8" in model else "float32")
    for rate, limit in (("prefill_flops", "float32_flops"), ("per_token_bytes_per_second", "read_bytes_per_second")):
        assert record[rate] > 0
        assert record[limit] > 1e8
    assert record["peak_memory"] > 1e6


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*QUICK, "--model", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "GB/s" in lines[0]
    assert "GFLOP/s" in lines[0]
    for part in ("load and pack", "decode the picture", "vision", "prefill", "first token", "per token", "peak memory"):
        assert any(line.strip().startswith(part) or part in line for line in lines[1:]), part


def test_torch_is_not_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
    assert cli.main([*QUICK, "--model", "demo"]) == 1
    assert "FASTER_SMOLVLM_ENGINE asks for torch" in capsys.readouterr().err


@pytest.mark.parametrize("tied", [True, False])
def test_random_weights_have_the_tensors_of_a_checkpoint(tied: bool) -> None:
    config = SmolVLMConfig.from_pretrained(DEMO_DIRECTORY)
    config.tie_word_embeddings = tied
    expected = {
        name: tuple(tensor.shape) for name, tensor in SmolVLMForConditionalGeneration(config).state_dict().items()
    }
    assert ("lm_head.weight" in expected) is not tied
    given = {name: tuple(shape) for name, dtype, shape, values in random_tensors(config)}
    assert given == expected


def test_random_weights_of_sizes_that_the_engine_refuses() -> None:
    config = SmolVLMConfig.from_pretrained(DEMO_DIRECTORY)
    config.text_config.num_hidden_layers = 2**40
    with pytest.raises(ValueError, match=r"text_config\.num_hidden_layers is 1099511627776, expected 1 to 1024"):
        random_tensors(config)
    config.vision_config.patch_size = (16, 16)
    with pytest.raises(ValueError, match=r"vision_config\.patch_size"):
        random_tensors(config)
