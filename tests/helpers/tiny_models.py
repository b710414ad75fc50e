"""Tiny random models, saved by Transformers and loaded by both sides."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from faster_smolvlm import SmolVLMForConditionalGeneration

IMAGE = 90
VOCABULARY = 100
TINY: dict[str, Any] = {
    "image_token_id": IMAGE,
    "scale_factor": 2,
    "pad_token_id": 128002,
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        "initializer_range": 0.2,
        "size": {"longest_edge": 64},
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.2,
        "pad_token_id": 2,
        "rope_theta": 1000.0,
        "rms_norm_eps": 1e-5,
    },
}


def tiny_config(**changes: Any) -> dict[str, Any]:
    """Return the tiny config; `changes` replace entries at the top."""
    return {**copy.deepcopy(TINY), **changes}


@dataclass
class Pair:
    """The same weights in Transformers and here, and the directory that both were loaded from."""

    theirs: Any
    ours: SmolVLMForConditionalGeneration
    directory: Path

    def use(self, attn_implementation: str) -> Pair:
        self.theirs.set_attn_implementation(attn_implementation)
        self.ours.set_attn_implementation(attn_implementation)
        return self

    def copy(self) -> Pair:
        return Pair(copy.deepcopy(self.theirs), copy.deepcopy(self.ours), self.directory)


def save_theirs(config: dict[str, Any], directory: Path) -> Any:
    """Make a random model in Transformers and save it; norms and biases too are random, so that none is a no-op."""
    torch.manual_seed(0)
    # The hub's sub-configs carry dtypes of their own; a model of mixed dtypes does not run.
    model = transformers.SmolVLMForConditionalGeneration(transformers.SmolVLMConfig(**config)).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
    model.save_pretrained(directory)
    return model


@dataclass
class Batch:
    """Two rows of 20 ids, each with two pictures of four image tokens."""

    input_ids: torch.Tensor
    pixel_values: torch.Tensor

    def inputs(self, **more: Any) -> dict[str, Any]:
        return {"input_ids": self.input_ids, "pixel_values": self.pixel_values, **more}


def two_rows() -> Batch:
    """Make the batch that the fixture of that name gives."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(3, 80, (2, 20), generator=generator)
    input_ids[0, 4:12] = IMAGE
    input_ids[1, 5:13] = IMAGE
    return Batch(input_ids, torch.randn(2, 2, 3, 32, 32, generator=generator))
