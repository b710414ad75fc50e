"""Logits of the real 256M and 500M configurations, randomly initialised, against Transformers: M09."""

from __future__ import annotations

import gc

import pytest
import torch
import transformers
from faster_smolvlm import SmolVLMForConditionalGeneration
from PIL import Image

pytestmark = [pytest.mark.real_size, pytest.mark.parity, pytest.mark.usefixtures("one_thread", "no_gradients")]

PICTURES = ("photo_astronaut.png", "photo_cats_chelsea.png", "chart_bar.jpg", "doc_code.png", "gray_coins.png")
PROMPT = "<|im_start|>User:<image>What do you see?<end_of_utterance>\nAssistant:"
TEXT = "<|im_start|>User: Name three rivers of Europe.<end_of_utterance>\nAssistant:"


@pytest.fixture(scope="module")
def inputs(data_dir):
    """Five pictures, one frame each, and text alone; the 500M uses the tokenizer and the frames of the 256M."""
    processor = transformers.AutoProcessor.from_pretrained(data_dir / "smolvlm2-256m-config")
    batches = {"text alone": processor(text=TEXT, return_tensors="pt")}
    for name in PICTURES:
        with Image.open(data_dir / "images" / name) as picture:
            batches[name] = processor(text=PROMPT, images=[picture], do_image_splitting=False, return_tensors="pt")
    return batches


def all_logits(model, inputs):
    return {name: model(**batch).logits for name, batch in inputs.items()}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", ["256m", "500m"])
def test_m09_logits_of_a_real_size(data_dir, inputs, tmp_path, size):
    config = transformers.SmolVLMConfig.from_pretrained(data_dir / f"smolvlm2-{size}-config")
    torch.manual_seed(0)
    theirs = transformers.SmolVLMForConditionalGeneration(config).float().eval()
    theirs.save_pretrained(tmp_path)
    expected = all_logits(theirs, inputs)
    del theirs  # one model at a time: the larger takes 2 GB
    gc.collect()
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert ours.dtype == torch.float32
    for name, logits in all_logits(ours, inputs).items():
        assert expected[name].std(1).mean() > 0.1, (
            f"{name}: the positions must differ for the comparison to mean a thing"
        )
        difference = (logits - expected[name]).abs().max()
        assert difference <= 1e-4, f"{name}: {difference}"
    del ours
    (tmp_path / "model.safetensors").unlink()
