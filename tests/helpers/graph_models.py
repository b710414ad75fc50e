"""A model whose decode step the interpreter makes in milliseconds, and prompts for it."""

from __future__ import annotations

import torch
from faster_smolvlm import SmolVLMConfig, SmolVLMForConditionalGeneration

WORDS = 61


def tiny_model(seed: int = 0, **text) -> SmolVLMForConditionalGeneration:
    torch.manual_seed(seed)
    text_config = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": WORDS, "rms_norm_eps": 1e-5,
        "eos_token_id": None, "pad_token_id": 0, "max_position_embeddings": 256, **text,
    }  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    config = SmolVLMConfig(text_config=text_config, vision_config=vision, image_token_id=WORDS - 1, scale_factor=2)
    model = SmolVLMForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.35)
    return model


def prompts(rows: int = 1, length: int = 6) -> dict[str, torch.Tensor]:
    """Prompts of different lengths, padded on the left."""
    ids = torch.randint(1, WORDS - 1, (rows, length), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, : row % length] = 0
    return {"input_ids": ids.where(mask.bool(), 0), "attention_mask": mask}
