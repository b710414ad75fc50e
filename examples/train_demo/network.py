"""The network: a SmolVLM of 1.8 million parameters, its initial weights, and one packed forward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .packing import Packed
from .scenes import TILE
from .tokens import BOS, EOS, IMAGE, PAD, VOCABULARY

PATCH, SHUFFLE = 8, 2
VISION, TEXT, LAYERS = 128, 160, 4


def configuration(token_id: Any) -> dict[str, Any]:
    """Return the config as the hub writes it; ``token_id`` maps a token to its id."""
    vision = {
        "model_type": "smolvlm_vision",
        "hidden_size": VISION,
        "intermediate_size": 384,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "image_size": TILE,
        "patch_size": PATCH,
    }
    text = {
        "model_type": "llama",
        "hidden_size": TEXT,
        "intermediate_size": 384,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": token_id(BOS),
        "eos_token_id": token_id(EOS),
        "pad_token_id": token_id(PAD),
    }
    return {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "model_type": "smolvlm",
        "image_token_id": token_id(IMAGE),
        "pad_token_id": token_id(PAD),
        "scale_factor": SHUFFLE,
        "tie_word_embeddings": True,
        "vocab_size": VOCABULARY,
        "vision_config": vision,
        "text_config": text,
    }


def initialise(model: nn.Module) -> None:
    """Start from variances by fan-in, small residual branches, and patch positions as 2-D sinusoids."""
    for name, weight in model.named_parameters():
        if "embed_tokens" in name:
            nn.init.normal_(weight, 0, 0.05)
        elif "position_embedding" in name:
            with torch.no_grad():
                weight.copy_(_sinusoids(TILE // PATCH, VISION))
        elif weight.ndim >= 2:
            deviation = weight[0].numel() ** -0.5
            if any(part in name for part in ("o_proj", "out_proj", "down_proj", "fc2")):
                deviation /= math.sqrt(2 * LAYERS)
            nn.init.normal_(weight, 0, deviation)


def _sinusoids(side: int, width: int) -> torch.Tensor:
    rates = 100.0 ** -torch.linspace(0, 1, width // 4)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [wave(axis.reshape(-1, 1) * rates) for axis in (x, y) for wave in (torch.sin, torch.cos)]
    return 0.5 * torch.cat(waves, 1)


def see(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the image features [frames, tokens, hidden] of pixels [batch, frames, 3, height, width]."""
    hidden = model.model.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
    features: torch.Tensor = model.model.connector(hidden)
    return features


def read(model: Any, features: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Return the hidden states [batch, length, hidden] of packed questions about pictures with these features."""
    text = model.model.text_model
    embeds = text.embed_tokens(packed.ids)
    places = (packed.ids == model.config.image_token_id).unsqueeze(-1)
    embeds = embeds.masked_scatter(places, features.reshape(-1, features.shape[-1]))
    states: torch.Tensor = text(
        inputs_embeds=embeds, attention_mask=packed.mask(), position_ids=packed.positions, use_cache=False
    ).last_hidden_state
    return states
