"""`generate` of Transformers and of ours on the same random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from faster_smolvlm import SmolVLMForConditionalGeneration

IMAGE, PAD, EOS = 269, 2, 7
TILES, TOKENS = 3, 4  # pictures of 16 × 16, patches of 4, shuffled 2 × 2: 4 tokens each
Models = tuple[Any, SmolVLMForConditionalGeneration]


def save_and_load(directory: Path) -> Models:
    """Transformers' model and ours of the same checkpoint; weights wide enough that tokens differ clearly."""
    config = transformers.SmolVLMConfig(
        image_token_id=IMAGE,
        scale_factor=2,
        tie_word_embeddings=False,
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 270,
            "bos_token_id": 1,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
            "initializer_range": 0.15,
        },
    )
    torch.manual_seed(0)
    theirs = transformers.SmolVLMForConditionalGeneration(config).eval()
    with torch.no_grad():
        theirs.lm_head.weight.normal_(std=1.0)
        theirs.model.text_model.embed_tokens.weight.normal_(std=1.0)
    theirs.save_pretrained(directory)
    return theirs, SmolVLMForConditionalGeneration.from_pretrained(directory)


def batch(*lengths: int, pictures: int = TILES, seed: int = 3) -> dict[str, torch.Tensor]:
    """Prompts of unequal length, padded on the left, each with `pictures` pictures at its start."""
    generator = torch.Generator().manual_seed(seed)
    rows, masks = [], []
    for length in lengths:
        text = torch.randint(10, 260, (length,), generator=generator)
        ids = torch.cat((torch.tensor([1]), torch.full((pictures * TOKENS,), IMAGE), text))
        padding = max(lengths) - length
        rows.append(torch.cat((torch.full((padding,), PAD), ids)))
        masks.append(torch.cat((torch.zeros(padding, dtype=torch.int64), torch.ones(len(ids), dtype=torch.int64))))
    made = {"input_ids": torch.stack(rows), "attention_mask": torch.stack(masks)}
    if pictures:
        made["pixel_values"] = torch.rand(len(lengths), pictures, 3, 16, 16, generator=generator) * 2 - 1
        made["pixel_attention_mask"] = torch.ones(len(lengths), pictures, 16, 16, dtype=torch.int64)
    return made


def both(models: Any, inputs: dict[str, Any], seed: int | None = None, **settings: Any) -> tuple[Any, Any]:
    results = []
    for model in models:
        if seed is not None:
            torch.manual_seed(seed)
        results.append(model.generate(**inputs, **settings))
    return results[0], results[1]


def equal(models: Any, inputs: dict[str, Any], **settings: Any) -> torch.Tensor:
    theirs, ours = both(models, inputs, **settings)
    assert torch.equal(theirs, ours)
    return ours


def an_early_token(models: Any, inputs: dict[str, torch.Tensor], step: int = 4) -> int:
    """A token that some row, but not every row, generates first at `step`: a good end-of-sequence id for a test."""
    ids = models[1].generate(**inputs, max_new_tokens=12, eos_token_id=-1)[:, inputs["input_ids"].shape[1] :]
    return int(ids[0, step])
