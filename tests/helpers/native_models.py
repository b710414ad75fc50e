"""Checkpoints that Transformers makes, random but with logits that differ between tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faster_smolvlm
import numpy as np
import pytest
import torch
from faster_smolvlm.native import NativeSmolVLM
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

TINY: dict[str, dict[str, Any]] = {
    # Odd widths everywhere: nothing is a multiple of the panels, and the keys of a head serve three queries.
    "odd": {
        "vision_config": {
            "hidden_size": 36, "intermediate_size": 50, "num_hidden_layers": 2, "num_attention_heads": 3,
            "image_size": 48, "patch_size": 6,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": 30, "intermediate_size": 70, "num_hidden_layers": 3,
            "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "vocab_size": 131,
            "max_position_embeddings": 700, "rope_theta": 1000.0, "pad_token_id": 2, "rms_norm_eps": 1e-5,
        },
        "scale_factor": 2, "image_token_id": 130, "tie_word_embeddings": False,
    },
    # The ratios of the 2.2B model: patch 14, heads of 72, scale 3, one key head per query head; a tied head.
    "large": {
        "vision_config": {
            "hidden_size": 144, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 84, "patch_size": 14,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 99,
            "max_position_embeddings": 2048, "rope_theta": 130000.0, "pad_token_id": 2,
        },
        "scale_factor": 3, "image_token_id": 98, "tie_word_embeddings": True,
    },
}  # fmt: skip


DEMO_DIRECTORY = Path(faster_smolvlm.__file__).parent / "demo"


def force(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the engine use this instruction set, or skip the test where the machine has not got it."""
    monkeypatch.setenv("FASTER_SMOLVLM_ISA", isa)
    try:
        NativeSmolVLM.from_pretrained(DEMO_DIRECTORY, cache_positions=16)
    except ValueError as error:
        if "this machine has" not in str(error):
            raise
        pytest.skip(str(error))


@dataclass(frozen=True)
class Saved:
    """A model of Transformers and the directory where it was saved."""

    model: Any
    directory: Path


def scale_up(model: torch.nn.Module, factor: float = 2.5) -> None:
    """Widen the initial weights, so that attention and logits have contrast, and make biases and norms matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.mul_(factor)
            elif "norm" in name and name.endswith("weight"):
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))


def save_random(name: str, directory: Path) -> Saved:
    """Save the model "odd", "large" or "idefics3" ("odd" under the other family's name) to a directory."""
    torch.manual_seed(1)
    config, model_class = (
        (Idefics3Config(**TINY["odd"]), Idefics3ForConditionalGeneration)
        if name == "idefics3"
        else (SmolVLMConfig(**TINY[name]), SmolVLMForConditionalGeneration)
    )
    model = model_class(config).eval().float()
    scale_up(model, 4.0)
    if name == "large":
        model.tie_weights()
    model.save_pretrained(directory)
    return Saved(model, directory)


def prompt(config: Any, frames: int, words: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Ids with the image tokens of `frames` frames in their midst, and their pixels."""
    random = np.random.default_rng(seed)
    vision = config.vision_config
    size = vision.image_size
    tokens = frames * (size // vision.patch_size) ** 2 // config.scale_factor**2
    ids = random.integers(3, config.image_token_id - 1, words)
    image = np.full(tokens, config.image_token_id)
    ids = np.concatenate([ids[: words // 2], image, ids[words // 2 :]])[None]
    inputs = {"input_ids": ids.astype(np.int64), "attention_mask": np.ones_like(ids)}
    if frames:
        inputs["pixel_values"] = random.uniform(-1, 1, (1, frames, 3, size, size)).astype(np.float32)
        inputs["pixel_attention_mask"] = np.ones((1, frames, size, size), np.int64)
    return inputs


def reference(model: Any, inputs: dict[str, np.ndarray], **kwargs: Any) -> np.ndarray:
    """Logits of Transformers."""
    with torch.no_grad():
        return model(**{key: torch.from_numpy(value) for key, value in inputs.items()}, **kwargs).logits.float().numpy()


def padded(rows: list[np.ndarray], pad: int = 0) -> dict[str, np.ndarray]:
    """Pad prompts on the left to one length."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, prompt_ids in enumerate(rows):
        ids[row, width - len(prompt_ids) :] = prompt_ids
        mask[row, width - len(prompt_ids) :] = 1
    return {"input_ids": ids, "attention_mask": mask}
