"""Write the checkpoint in the hub's file layout: ``python -m examples.train_demo.export --state build/demo``."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from .batches import PROCESSOR
from .network import configuration
from .prompts import SEQUENCE
from .tokens import BOS, EOS, FAKE, GLOBAL, IMAGE, PAD, UNKNOWN

TARGET = Path(__file__).resolve().parents[2] / "python" / "faster_smolvlm" / "demo"
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{{ '' if message['content'][0]['type'] == 'image' else ' ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] in ['image', 'video'] %}{{ '<' + part['type'] + '>' }}{% endif %}"
    "{% endfor %}{{ '<end_of_utterance>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
NAMED = {"end_of_utterance_token": EOS, "fake_image_token": FAKE, "global_image_token": GLOBAL, "image_token": IMAGE}
ROLES = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "unk_token": UNKNOWN}


def settings(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """Return the content of every JSON file beside the weights, by file name."""
    named = tokenizer.token_to_id
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    extra = [FAKE, IMAGE, EOS]
    return {
        "config.json": configuration(named) | {"torch_dtype": "float32"},
        "generation_config.json": {
            "bos_token_id": named(BOS),
            "eos_token_id": named(EOS),
            "pad_token_id": named(PAD),
        },
        "preprocessor_config.json": {
            "do_convert_rgb": True,
            "do_image_splitting": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_processor_type": "SmolVLMImageProcessor",
            "processor_class": "SmolVLMProcessor",
            "resample": 1,
            "rescale_factor": 1 / 255,
            "video_sampling": {"fps": 1, "max_frames": 8, "video_size": PROCESSOR["max_image_size"]},
        }
        | PROCESSOR,
        "processor_config.json": {"image_seq_len": SEQUENCE, "processor_class": "SmolVLMProcessor"},
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "special_tokens_map.json": {"additional_special_tokens": extra}
        | {role: {"content": token} | flags for role, token in ROLES.items()}
        | NAMED,
        "tokenizer_config.json": {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(i): {"content": t.content, "special": True} | flags for i, t in added},
            "additional_special_tokens": extra,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "extra_special_tokens": NAMED,
            "model_max_length": 2048,
            "padding_side": "left",
            "processor_class": "SmolVLMProcessor",
            "tokenizer_class": "GPT2Tokenizer",
            "truncation_side": "left",
        }
        | ROLES
        | NAMED,
    }


def export(state: Path, target: Path) -> int:
    """Write weights, tokenizer and settings of a training state; return the bytes of all files of the checkpoint."""
    target.mkdir(parents=True, exist_ok=True)
    weights: dict[str, torch.Tensor] = torch.load(state / "state.pt", weights_only=True)["model"]
    kept = {name: weight.float().contiguous() for name, weight in weights.items() if name != "lm_head.weight"}
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)
    shutil.copyfile(state / "tokenizer.json", target / "tokenizer.json")
    for name, content in settings(Tokenizer.from_file(str(state / "tokenizer.json"))).items():
        (target / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return sum(file.stat().st_size for file in target.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--target", type=Path, default=TARGET, help="folder of the checkpoint")
    options = parser.parse_args()
    print(f"{options.target}: {export(options.state, options.target):,} bytes")


if __name__ == "__main__":
    main()
