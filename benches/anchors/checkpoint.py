"""One set of random weights for all engines, and its conversion into the formats that they read.

Each function writes into a cache directory and does nothing where its result is there already.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

SEED = 2
HUGGING_FACE = "hugging-face"


def _once(target: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` make a file or folder under a temporary name; rename it when it is complete."""
    if not target.exists():
        partial = target.with_name(f"partial-{target.name}")
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.rename(target)
    return target


def hugging_face(config: Path, cache: Path) -> Path:
    """Random weights of a real configuration, with its tokenizer.

    float32 numbers that bfloat16 holds exactly, with an untied head (a tied random one predicts its input, whatever
    the layers do). The embeddings have unit variance and what the text layers add to them is halved, so that the
    stream is the token's as in trained models: at the gain of the initialisation 30 random layers amplify any rounding.
    """

    def write(folder: Path) -> None:
        import torch
        from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

        torch.manual_seed(SEED)
        values = json.loads((config / "config.json").read_text())
        model = SmolVLMForConditionalGeneration(SmolVLMConfig(**{**values, "tie_word_embeddings": False})).eval()
        with torch.no_grad():
            embeddings = model.model.text_model.embed_tokens.weight
            embeddings.div_(embeddings.std())
            for layer in model.model.text_model.layers:
                layer.self_attn.o_proj.weight.mul_(0.5)
                layer.mlp.down_proj.weight.mul_(0.5)
            for parameter in model.model.vision_model.parameters():
                if parameter.ndim >= 2:
                    parameter.mul_(1.5)
            for parameter in model.parameters():
                parameter.copy_(parameter.bfloat16().float())
        model.save_pretrained(folder)
        for path in config.iterdir():
            if path.is_file() and not (folder / path.name).exists():
                shutil.copy(path, folder)

    return _once(cache / HUGGING_FACE, write)


def text_stack(checkpoint: Path, cache: Path) -> Path:
    """The text stack alone, as a Llama checkpoint."""

    def write(folder: Path) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM, SmolVLMForConditionalGeneration

        model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint, dtype="float32")
        values = model.config.text_config.to_dict()
        known = set(LlamaConfig().to_dict()) - {"architectures", "model_type", "transformers_version"}
        llama = LlamaForCausalLM(
            LlamaConfig(**{key: values[key] for key in known & set(values)} | {"tie_word_embeddings": False})
        )
        llama.model.load_state_dict(model.model.text_model.state_dict())
        llama.lm_head.load_state_dict(model.lm_head.state_dict())
        llama.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(checkpoint / name, folder)

    return _once(cache / "llama", write)


def openvino_text(checkpoint: Path, cache: Path, python: Path | None, weights: str) -> Path:
    """The text stack for openvino-genai, by optimum-intel, whose own Transformers lives in the environment of `python`.

    `weights` is its `--weight-format`: "fp32" or "int8".
    """

    def write(folder: Path) -> None:
        if python is None:
            raise RuntimeError("--export-python is not given: the text stack cannot be exported to OpenVINO.")
        export = "from optimum.commands.optimum_cli import main; main()"
        arguments = ["export", "openvino", "--task", "text-generation-with-past", "--weight-format", weights]
        source = text_stack(checkpoint, cache)
        _run([str(python), "-c", export, *arguments, "--model", str(source), str(folder)])

    return _once(cache / f"openvino-text-{weights}", write)


def openvino_vision(checkpoint: Path, cache: Path) -> Path:
    """The vision tower with the connector: one frame [1, 3, size, size] to its image tokens."""

    def write(folder: Path) -> None:
        import openvino
        import torch
        from transformers import SmolVLMForConditionalGeneration

        model = (
            SmolVLMForConditionalGeneration.from_pretrained(checkpoint, dtype="float32").eval().requires_grad_(False)
        )
        size = model.config.vision_config.image_size

        class Tower(torch.nn.Module):
            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                return model.model.get_image_features(pixels[None]).pooler_output

        with torch.no_grad():
            converted = openvino.convert_model(Tower(), example_input=torch.rand(1, 3, size, size))
        converted.reshape([1, 3, size, size])
        folder.mkdir()
        openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)

    return _once(cache / "openvino-vision", write) / "model.xml"


def gguf(checkpoint: Path, cache: Path, source: Path | None, precision: str, *, vision: bool = False) -> Path:
    """The text stack, or the vision tower, for llama.cpp: by its own converter in `source`, and its own quantiser."""

    def write(path: Path) -> None:
        if precision == "Q4_0":
            _quantize(gguf(checkpoint, cache, source, "BF16"), path)
            return
        if source is None:
            raise RuntimeError("--llama-source is not given: the weights cannot be converted for llama.cpp.")
        arguments = ["--outtype", precision.lower(), "--outfile", str(path), *(["--mmproj"] if vision else [])]
        _run([sys.executable, str(source / "convert_hf_to_gguf.py"), str(checkpoint), *arguments])

    return _once(cache / f"{'mmproj' if vision else 'text'}-{precision}.gguf", write)


def _quantize(source: Path, target: Path) -> None:
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters) != 0:
        raise RuntimeError(f"llama.cpp could not quantise {source}.")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
