"""The configurations of the three SmolVLM2 sizes, written anew: what the hub's files say, without their weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["SmolVLMForConditionalGeneration"],
    "image_token_id": 49190,
    "model_type": "smolvlm",
    "pad_token_id": 128002,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.47.1",
    "use_cache": False,
    "vocab_size": 49280,
    "text_config": {
        "architectures": ["VLlama3ForCausalLM"],
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "pad_token_id": 2,
        "perceiver_config": {
            "model_type": "vllama3",
            "resampler_depth": 6,
            "tie_word_embeddings": True,
        },  # read by none
        "qk_layer_norms": False,
        "rms_norm_eps": 1e-05,
        "torch_dtype": "bfloat16",
        "vocab_size": 49280,
    },
    "vision_config": {"model_type": "smolvlm_vision", "tie_word_embeddings": False},
}
PREPROCESSOR: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SmolVLMImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "SmolVLMProcessor",
    "resample": 1,
    "rescale_factor": 0.00392156862745098,
}
GENERATION = {
    "_from_model_config": True, "bos_token_id": 0, "eos_token_id": 49279, "pad_token_id": 2,
    "transformers_version": "4.47.1",
}  # fmt: skip
SMALL_VISION = {"hidden_size": 768, "image_size": 512, "num_attention_heads": 12, "patch_size": 16}
# Of each size: the decoder, the tower, pixels shuffled together, edge of a tile, tokens of a tile.
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int, int]] = {
    "256m": (
        {
            "hidden_size": 576, "initializer_range": 0.041666666666666664, "intermediate_size": 1536,
            "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "rope_theta": 100000,
        },
        SMALL_VISION, 4, 512, 64,
    ),
    "500m": (
        {
            "hidden_size": 960, "intermediate_size": 2560, "num_attention_heads": 15, "num_hidden_layers": 32,
            "num_key_value_heads": 5, "rope_theta": 100000,
        },
        SMALL_VISION, 4, 512, 64,
    ),
    "2.2b": (
        {
            "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_hidden_layers": 24,
            "num_key_value_heads": 32, "rope_theta": 130000,
        },
        {
            "hidden_size": 1152, "image_size": 384, "intermediate_size": 4304, "num_attention_heads": 16,
            "num_hidden_layers": 27, "patch_size": 14,
        },
        3, 384, 81,
    ),
}  # fmt: skip


def files(size: str) -> dict[str, dict[str, Any]]:
    """Return the contents of the four files of a size ("256m", "500m", "2.2b")."""
    text, vision, shuffle, tile, tokens = SIZES[size]
    config = copy.deepcopy({**CONFIG, "scale_factor": shuffle})
    config["text_config"] |= {**text, "pixel_shuffle_factor": shuffle}
    edges = {"max_image_size": {"longest_edge": tile}, "size": {"longest_edge": 4 * tile}}
    config["vision_config"] |= {**vision, **edges}
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": tile}}
    return {
        "config.json": config,
        "preprocessor_config.json": {**PREPROCESSOR, **edges, "video_sampling": sampling},
        "processor_config.json": {"image_seq_len": tokens, "processor_class": "SmolVLMProcessor"},
        "generation_config.json": dict(GENERATION),
    }


def write(size: str, folder: Path) -> Path:
    for name, content in files(size).items():
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder
