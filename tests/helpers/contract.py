"""What the tests of others' pipelines share: the demo under Idefics3's names, a question, an answer, equality."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

SERVED = "transformers" if transformers.__version__.startswith("4.") else "native"
"""What `generate` of an accelerated model is served by: 4.57 gives the patches of pictures other positions."""

Twice = Callable[[Callable[[], Any]], tuple[Any, Any]]


def as_idefics3(source: Path, folder: Path) -> Path:
    """Copy a folder to where it has the names that SmolVLM v1, SmolDocling and ColSmol have."""
    shutil.copytree(source, folder)
    for path in folder.glob("*config.json"):
        values = json.loads(path.read_text())
        values.pop("video_processor", None)
        values.pop("video_sampling", None)
        path.write_text(json.dumps(values).replace("SmolVLM", "Idefics3").replace('"smolvlm', '"idefics3'))
    return folder


def same(fast: Any, plain: Any) -> None:
    """Equal keys, shapes, dtypes and values, to the bit."""
    assert list(fast) == list(plain)
    for name in plain:
        torch.testing.assert_close(fast[name], plain[name], rtol=0, atol=0)


def question(text: str = "Describe the image.", **image: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", **image}, {"type": "text", "text": text}]}]


def load(folder: Path, **options: Any) -> tuple[Any, Any]:
    """Load a processor and a model by the auto classes of Transformers."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **options)
    return transformers.AutoProcessor.from_pretrained(folder), model.eval()


def answer(processor: Any, model: Any, scene: Image.Image) -> str:
    text = processor.apply_chat_template(question(), add_generation_prompt=True)
    inputs = processor(text=text, images=[scene], return_tensors="pt").to(model.device)
    ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    return str(processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])
