"""Time the torch model against Transformers' on this machine: vision tower, prompt, step of decoding.

python -m benches.bench_model [--size 256m|500m] [--dtype float32|bfloat16] [--rounds N]; both sides hold the same
random weights. The ratio is the result: above 1 means faster than Transformers.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from faster_smolvlm import SmolVLMForConditionalGeneration

from benches.timing import alternate, machine, table

TEXT = {
    "256m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
    "500m": {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15},
}
VISION = {"hidden_size": 768, "num_attention_heads": 12, "image_size": 512, "patch_size": 16}
IMAGE_TOKEN = 49190


def config(size: str) -> transformers.SmolVLMConfig:
    """Return the hub's configuration of a size."""
    text = {
        **TEXT[size],
        "model_type": "llama",
        "vocab_size": 49280,
        "num_key_value_heads": TEXT[size]["num_attention_heads"] // 3,
        "head_dim": 64,
        "pad_token_id": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000,
        "max_position_embeddings": 8192,
    }
    return transformers.SmolVLMConfig(
        text_config=text, vision_config=VISION, scale_factor=4, image_token_id=IMAGE_TOKEN
    )


def prompt(model: Any, ids: torch.Tensor) -> Callable[[], Any]:
    """Score the token after `ids`, from an empty cache."""
    return lambda: model(ids, use_cache=True, logits_to_keep=1)


def step(model: Any, ids: torch.Tensor) -> Callable[[], Any]:
    """One more token onto a cache that holds `ids`; the cache is cut back, so that every round does the same."""
    cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
    token = ids[:, -1:]

    def run() -> None:
        model(token, past_key_values=cache, logits_to_keep=1)
        cache.crop(-1)

    return run


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=TEXT, default="256m")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=1, help="frames for the vision tower")
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)

    with tempfile.TemporaryDirectory() as directory:
        torch.manual_seed(0)
        transformers.SmolVLMForConditionalGeneration(config(options.size)).save_pretrained(Path(directory))
        sides: dict[str, Any] = {
            "Transformers": transformers.SmolVLMForConditionalGeneration.from_pretrained(
                directory, dtype=options.dtype
            ),
            "faster_smolvlm": SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=options.dtype),
        }
    pixels = torch.randn(1, options.frames, 3, 512, 512)
    mask = torch.ones(1, options.frames, 512, 512, dtype=torch.long)
    cases: dict[str, Callable[[Any], Callable[[], Any]]] = {
        f"vision tower, {options.frames} frame(s)": lambda model: lambda: model.get_image_features(pixels, mask),
        "prompt of 96 tokens": lambda model: prompt(model, torch.randint(100, 40000, (1, 96))),
        "prompt of 1200 tokens": lambda model: prompt(model, torch.randint(100, 40000, (1, 1200))),
        "step, 96 tokens cached": lambda model: step(model, torch.randint(100, 40000, (1, 96))),
        "step, 1200 tokens cached": lambda model: step(model, torch.randint(100, 40000, (1, 1200))),
        "step, 1200 tokens cached, batch of 4": lambda model: step(model, torch.randint(100, 40000, (4, 1200))),
    }
    rows = []
    with torch.inference_mode():
        for name, case in cases.items():
            timings = alternate({side: case(model) for side, model in sides.items()}, rounds=options.rounds)
            theirs, ours = timings["Transformers"], timings["faster_smolvlm"]
            rows.append([name, str(theirs), str(ours), f"{theirs.median / ours.median:.2f}"])
    print(f"{machine('torch', 'transformers')}; {options.size}, {options.dtype}, {torch.get_num_threads()} threads\n")
    print(table(["case", "Transformers", "faster_smolvlm", "ratio"], rows))


if __name__ == "__main__":
    main()
