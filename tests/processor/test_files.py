"""Files of a processor, read and written by either side."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import transformers
from faster_smolvlm import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor
from faster_smolvlm.processor.processing_smolvlm import SmolVLMProcessor

pytestmark = pytest.mark.parity

PICTURE = PIL.Image.fromarray((np.arange(40 * 100 * 3) % 251).astype(np.uint8).reshape(40, 100, 3))
CONVERSATION = [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What?"}]}]


def run(processor: Any) -> dict[str, Any]:
    return dict(
        processor.apply_chat_template(
            CONVERSATION, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="np"
        )
    )


def assert_same(ours: dict[str, Any], reference: dict[str, Any]) -> None:
    assert list(ours) == list(reference)
    for key, value in reference.items():
        np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-6)


def test_hub_layout(checkpoint_dir: Path) -> None:
    ours, reference = (
        AutoProcessor.from_pretrained(checkpoint_dir),
        transformers.AutoProcessor.from_pretrained(checkpoint_dir),
    )
    assert isinstance(ours, SmolVLMProcessor)
    assert ours.image_seq_len == reference.image_seq_len
    assert ours.chat_template == reference.chat_template
    assert dict(ours.image_processor.size) == dict(reference.image_processor.size)
    assert ours.image_processor.max_image_size == reference.image_processor.max_image_size
    assert_same(run(ours), run(reference))


def test_saved_by_us(small_checkpoint: Path, tmp_path: Path) -> None:
    ours = AutoProcessor.from_pretrained(small_checkpoint)
    ours.tokenizer.padding_side = "left"
    ours.image_processor.do_image_splitting = False
    files = ours.save_pretrained(tmp_path)
    assert files == [str(tmp_path / "processor_config.json")]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"processor_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.tokenizer.padding_side == "left"
    assert_same(run(again), run(ours))
    if ours.video_processor is None:  # Transformers asks for its settings
        (tmp_path / "video_preprocessor_config.json").write_text("{}")
    shutil.copyfile(small_checkpoint / "config.json", tmp_path / "config.json")
    theirs = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "SmolVLMProcessor"
    assert theirs.tokenizer.padding_side == "left"
    assert_same(run(ours), run(theirs))


def test_saved_by_transformers(small_checkpoint: Path, tmp_path: Path) -> None:
    reference = transformers.AutoProcessor.from_pretrained(small_checkpoint)
    reference.save_pretrained(tmp_path)
    ours = AutoProcessor.from_pretrained(tmp_path)
    assert_same(run(ours), run(reference))
    assert ours.chat_template == reference.chat_template
    if ours.video_processor is not None:
        ours.save_pretrained(tmp_path / "again")
        assert json.loads((tmp_path / "again/processor_config.json").read_text()) == json.loads(
            (tmp_path / "processor_config.json").read_text()
        )


def test_several_templates(small_checkpoint: Path, tmp_path: Path) -> None:
    ours = AutoProcessor.from_pretrained(small_checkpoint)
    ours.chat_template = {"default": "one", "second": "two"}
    ours.save_pretrained(tmp_path)
    assert (tmp_path / "additional_chat_templates/second.jinja").read_text() == "two"
    assert AutoProcessor.from_pretrained(tmp_path).chat_template == ours.chat_template
    (tmp_path / "chat_template.json").write_text('{"chat_template": "x"}')
    with pytest.raises(ValueError, match="legacy"):
        AutoProcessor.from_pretrained(tmp_path)
    for name in ("../outside", "", "..", "a/b", "a\\b", "a\0b"):
        ours.chat_template = {name: "x"}
        with pytest.raises(ValueError, match="Invalid chat template name"):
            ours.save_pretrained(tmp_path / "other")


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("template", [5, True, [1], [{"name": "a"}], {"default": 5}, [{"name": {}, "template": "x"}]])
def test_templates_that_are_no_texts(small_checkpoint: Path, tmp_path: Path, name: str, template: object) -> None:
    shutil.copytree(small_checkpoint, tmp_path / "wrong")
    path = tmp_path / "wrong" / name
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, "chat_template": template}))
    with pytest.raises(ValueError, match=r"chat_template|chat templates"):
        AutoProcessor.from_pretrained(tmp_path / "wrong")


def test_a_template_given_that_is_no_text(small_checkpoint: Path) -> None:
    with pytest.raises(TypeError, match="chat_template must be a text"):
        AutoProcessor.from_pretrained(small_checkpoint).apply_chat_template(
            [{"role": "user", "content": "x"}], chat_template=5
        )


def test_arguments_of_loading(small_checkpoint: Path) -> None:
    arguments = {"do_image_splitting": False, "size": {"longest_edge": 64}, "padding_side": "left"}
    ours = AutoProcessor.from_pretrained(small_checkpoint, trust_remote_code=False, revision=None, **arguments)
    reference = transformers.AutoProcessor.from_pretrained(small_checkpoint, **arguments)
    assert ours.tokenizer.padding_side == "left"
    assert_same(run(ours), run(reference))
    assert AutoProcessor.from_pretrained(small_checkpoint, image_seq_len=9).image_seq_len == 9
    assert AutoProcessor.from_pretrained(small_checkpoint, chat_template="x").chat_template == "x"
    # what was set while loading can be changed later
    ours.image_processor.do_image_splitting = True
    assert run(ours)["pixel_values"].shape[1] > 1


def test_unknown_argument_of_loading_is_an_error_where_transformers_drops_it(small_checkpoint: Path) -> None:
    with pytest.raises(TypeError, match="min_pixels"):
        AutoProcessor.from_pretrained(small_checkpoint, min_pixels=3)


@pytest.mark.parametrize("backend", ["pil", "torchvision"])
def test_backends(backend: str, small_checkpoint: Path) -> None:
    ours = AutoImageProcessor.from_pretrained(small_checkpoint, backend=backend)
    reference = transformers.AutoImageProcessor.from_pretrained(small_checkpoint, backend=backend)
    assert type(ours).__name__ == type(reference).__name__
    assert type(AutoProcessor.from_pretrained(small_checkpoint, backend=backend).image_processor) is type(ours)
    assert type(AutoImageProcessor.from_pretrained(small_checkpoint, use_fast=backend != "pil")) is type(ours)


def test_unknown_backend(small_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="backend must be"):
        AutoProcessor.from_pretrained(small_checkpoint, backend="opencv")


@pytest.mark.parametrize("kind", [AutoProcessor, AutoImageProcessor, AutoModelForImageTextToText])
def test_factories_have_no_instances(kind: Any) -> None:
    with pytest.raises(OSError, match="from_pretrained"):
        kind()


@pytest.mark.parametrize("name", ["processor_config.json", "chat_template.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_broken_files(name: str, content: bytes, small_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(small_checkpoint, tmp_path / "broken")
    (tmp_path / "broken" / name).write_bytes(content)
    with pytest.raises(OSError, match=name.replace(".", r"\.")):
        AutoProcessor.from_pretrained(tmp_path / "broken")


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"tokenizer\.json|preprocessor_config\.json"):
        AutoProcessor.from_pretrained(tmp_path)


def test_no_torch(small_checkpoint: Path) -> None:
    """Loading and calling a processor imports neither torch nor Transformers unless tensors are asked for."""
    code = (
        "import sys, numpy, PIL.Image\n"
        "from faster_smolvlm import AutoProcessor\n"
        f"processor = AutoProcessor.from_pretrained({str(small_checkpoint)!r})\n"
        "out = processor(text='<image>', images=PIL.Image.new('RGB', (9, 7)), return_tensors='np')\n"
        "assert type(out['pixel_values']) is numpy.ndarray\n"
        "print([name for name in ('torch', 'transformers', 'torchvision', 'num2words') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
