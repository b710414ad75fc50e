"""Files of a checkpoint from a stranger: each key of each JSON file with values that nobody expects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faster_smolvlm import (
    GenerationConfig,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from faster_smolvlm.checkpoint import hub
from faster_smolvlm.checkpoint.hub import checkpoint
from faster_smolvlm.checkpoint.weights import WeightFiles
from faster_smolvlm.native.model import model_sizes
from faster_smolvlm.text.tokenization_smolvlm import SmolVLMTokenizer
from huggingface_hub.errors import StrictDataclassError

DEMO = Path(hub.__file__).parents[1] / "demo"
SLOT = "@slot@"
VALUES = {
    "null": "null",
    "true": "true",
    "-1": "-1",
    "0": "0",
    "2**63": str(1 << 63),
    "10**400": "1" + "0" * 400,
    "1e308": "1e308",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "x": '"x"',
    "surrogate": r'"\ud800"',
    "[]": "[]",
    "{}": "{}",
    "[null]": "[null]",
    '{"x": null}': '{"x": null}',
    "deep": "[" * 10_000 + "]" * 10_000,
    "deep 900": '{"a":' * 900 + "0" + "}" * 900,
    "1 MB": '"' + "x" * (1 << 20) + '"',
}
LONGEST = 600
SECONDS = 2.0


def _config(folder: Path) -> None:
    config = SmolVLMConfig.from_pretrained(folder)
    GenerationConfig.from_model_config(config)
    with suppress(ValueError):  # it names the entry of the config
        model_sizes(config)
    config.to_json_string()


def _generation(folder: Path) -> None:
    repr(GenerationConfig.from_pretrained(folder))


READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "config.json": (_config,),
    "generation_config.json": (_generation,),
    "preprocessor_config.json": (SmolVLMImageProcessor.from_pretrained, SmolVLMVideoProcessor.from_pretrained),
    "video_preprocessor_config.json": (SmolVLMVideoProcessor.from_pretrained,),
    "processor_config.json": (SmolVLMProcessor.from_pretrained,),
    "tokenizer_config.json": (SmolVLMTokenizer.from_pretrained,),
    "special_tokens_map.json": (SmolVLMTokenizer.from_pretrained,),
    "model.safetensors.index.json": (lambda folder: WeightFiles(checkpoint(folder)),),
}


def _contents(name: str) -> dict[str, Any]:
    """Return what a file holds: that of the demo, and entries that others have."""
    source = "preprocessor_config.json" if name.startswith("video") else name
    values: dict[str, Any] = json.loads((DEMO / source).read_text()) if (DEMO / source).exists() else {}
    pixels = {"size": {"longest_edge": 64}, "video_sampling": {"fps": 1, "max_frames": 2, "video_size": {}}}
    more = {
        "processor_config.json": {"image_processor": pixels, "video_processor": pixels, "chat_template": "x"},
        "tokenizer_config.json": {
            "extra_special_tokens": {"a_token": "x"},
            "additional_special_tokens": ["y"],
            "max_len": 5,
            "name_or_path": "x",
        },
        "model.safetensors.index.json": {"metadata": {"total_size": 1}, "weight_map": {"a": "b.safetensors"}},
        "config.json": {"dtype": "float32", "text_config": {**values.get("text_config", {}), "rope_scaling": {"x": 1}}},
    }
    return {**values, **more.get(name, {})}


def _paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        entries = list(value.items())[: 2 if path[-1:] == ("added_tokens_decoder",) else None]
    elif isinstance(value, list):
        entries = list(enumerate(value[:1]))
    for key, inner in entries:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


def _with_slot(values: dict[str, Any], path: tuple[Any, ...]) -> str:
    changed = json.loads(json.dumps(values))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = SLOT
    return json.dumps(changed)


@pytest.mark.parametrize("name", READERS)
def test_every_entry_with_values_that_nobody_expects(name: str, tmp_path: Path) -> None:
    for file in ("tokenizer.json", "preprocessor_config.json", "config.json", "model.safetensors"):
        if not (file == "model.safetensors" and name == "model.safetensors.index.json"):
            (tmp_path / file).symlink_to(DEMO / file)
    (tmp_path / name).unlink(missing_ok=True)
    values, wrong = _contents(name), []
    for path in _paths(values):
        text = _with_slot(values, path)
        key = [part for part in path if isinstance(part, str)][-1]
        for value, written in VALUES.items():
            (tmp_path / name).write_text(text.replace(f'"{SLOT}"', written))
            for reader in READERS[name]:
                wrong += [f"{path} = {value}: {problem}" for problem in _problems(reader, tmp_path, name, key)]
    assert not wrong, wrong[:10]


def _problems(reader: Callable[[Path], object], folder: Path, name: str, key: str) -> Iterator[str]:
    start = time.process_time()
    try:
        reader(folder)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        text = str(error)
        if isinstance(error, UnicodeError) or len(text) > LONGEST + 2 * len(str(folder)):
            yield f"{type(error).__name__} of {len(text)} characters"
        # A file that is too deep for the parser has no entries; a shard that is missing is one of the folder.
        if "too deeply" not in text and "does not have a file" not in text and not (name in text and key in text):
            yield text[:300]
    except Exception as error:
        yield f"{type(error).__name__}: {str(error)[:200]}"
    if time.process_time() - start > SECONDS:
        yield f"{time.process_time() - start:.1f} s"
