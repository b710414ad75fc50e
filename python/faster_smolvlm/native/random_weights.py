"""Random weights for a configuration: what a machine makes of a model can be measured without its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..checkpoint.configuration_smolvlm import SmolVLMConfig
from .model import MemoryTensor

_BLOCK = 1 << 20


def random_tensors(config: SmolVLMConfig, *, seed: int = 0) -> list[MemoryTensor]:
    """Return bfloat16 tensors for all names of a checkpoint: weights normal, norms 1, biases 0.

    Matrices repeat one block of random numbers: drawing hundreds of millions would take longer than measuring.
    """
    random = np.random.default_rng(seed).standard_normal(_BLOCK, dtype=np.float32) * 0.02
    block, one = _bfloat16(random), _bfloat16(np.ones(1, np.float32))
    tensors: list[MemoryTensor] = []
    for name, shape in _shapes(config):
        if len(shape) > 1:
            values = np.resize(block, shape)
        else:
            values = np.full(shape, one[0] if name.endswith("weight") else 0, np.uint16)
        tensors.append((name, "bfloat16", shape, values.reshape(-1).view(np.uint8)))
    return tensors


def _bfloat16(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _shapes(config: SmolVLMConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    vision, text = config.vision_config, config.text_config
    patch, size = vision.patch_size, vision.image_size
    assert isinstance(patch, int)
    assert isinstance(size, int)
    wide, inner = vision.hidden_size, vision.intermediate_size
    tower = "model.vision_model"
    yield f"{tower}.embeddings.patch_embedding.weight", (wide, vision.num_channels, patch, patch)
    yield f"{tower}.embeddings.patch_embedding.bias", (wide,)
    yield f"{tower}.embeddings.position_embedding.weight", ((size // patch) ** 2, wide)
    for index in range(vision.num_hidden_layers):
        layer = f"{tower}.encoder.layers.{index}"
        linears = {f"self_attn.{part}": (wide, wide) for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
        for part, shape in {**linears, "mlp.fc1": (inner, wide), "mlp.fc2": (wide, inner)}.items():
            yield f"{layer}.{part}.weight", shape
            yield f"{layer}.{part}.bias", shape[:1]
        yield from _norm(f"{layer}.layer_norm1", wide)
        yield from _norm(f"{layer}.layer_norm2", wide)
    yield from _norm(f"{tower}.post_layernorm", wide)
    hidden, inner = text.hidden_size, text.intermediate_size
    yield "model.connector.modality_projection.proj.weight", (hidden, wide * config.scale_factor**2)
    head_dim = text.head_dim or hidden // text.num_attention_heads
    queries, keys = text.num_attention_heads * head_dim, (text.num_key_value_heads or 0) * head_dim
    yield "model.text_model.embed_tokens.weight", (text.vocab_size, hidden)
    for index in range(text.num_hidden_layers):
        layer = f"model.text_model.layers.{index}"
        yield f"{layer}.self_attn.q_proj.weight", (queries, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, queries)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.text_model.norm.weight", (hidden,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (text.vocab_size, hidden)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
