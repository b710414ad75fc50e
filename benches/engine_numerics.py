"""How far the native engine's logits and image tokens are from Transformers' in float32, for each kind of weights.

    python -m benches.engine_numerics --config DIR [--layers N] [--weights NAME ...] [--isa NAME ...]

DIR holds a real `config.json`. The weights are drawn as GPT-2's are: matrices and embeddings normal with the config's
`initializer_range`, what a branch adds to the stream divided by sqrt(2 · layers), the head untied. They are rounded to
bfloat16, as checkpoints are. The same model with planted outliers computes the same function through activations of
which one channel in a hundred is 40 times as large. The instruction sets `amx` and
`avx512bf16` round activations to bfloat16 before they multiply them with bfloat16 weights, the others do not.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_smolvlm.native import NativeSmolVLM
from torch import Tensor, nn
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

FAMILIES: dict[str, tuple[Any, Any]] = {
    "smolvlm": (SmolVLMConfig, SmolVLMForConditionalGeneration),
    "idefics3": (Idefics3Config, Idefics3ForConditionalGeneration),
}
WORDS = 150
OUTLIER = 40.0
SHARE = 0.01
WEIGHTS: dict[str, dict[str, str]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantization": "int8"},
}


def build(
    directory: Path,
    *,
    layers: int | None = None,
    vocabulary: int | None = None,
    family: str = "smolvlm",
    seed: int = 0,
) -> Any:
    """Return a model of Transformers for a `config.json`, its head untied; with fewer layers and tokens if asked.

    `family` is "smolvlm" or "idefics3".
    """
    values = json.loads((directory / "config.json").read_text())
    values["tie_word_embeddings"] = values["text_config"]["tie_word_embeddings"] = False
    if layers is not None:
        values["text_config"]["num_hidden_layers"] = values["vision_config"]["num_hidden_layers"] = layers
    if vocabulary is not None:
        values["text_config"]["vocab_size"] = vocabulary
        values["image_token_id"] = vocabulary - 1
        for part in (values, values["text_config"]):
            part |= {name: 2 for name in part if name.endswith("token_id") and name != "image_token_id"}
    config_class, model_class = FAMILIES[family]
    values["model_type"] = family
    torch.manual_seed(seed)
    with torch.device("meta"):
        model = model_class(config_class(**values))
    model = model.to_empty(device="cpu").float().eval()
    initialise(model, values["text_config"].get("initializer_range", 0.02))
    return model


@torch.no_grad()
def initialise(model: Any, std: float) -> None:
    """Draw the weights, see above, rounded to bfloat16."""
    text, vision = model.model.text_model, model.model.vision_model
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
            module.weight.normal_(std=std)
        elif isinstance(getattr(module, "weight", None), Tensor):
            module.weight.fill_(1.0)
        if isinstance(getattr(module, "bias", None), Tensor):
            module.bias.zero_()
    for branch in _branches(model):
        depth = len(text.layers if branch.out_features == text.config.hidden_size else vision.encoder.layers)
        branch.weight.div_((2 * depth) ** 0.5)
    rotary = text.rotary_emb  # a buffer that no file holds: made again after to_empty
    inverse, _ = rotary.compute_default_rope_parameters(text.config)
    rotary.inv_freq.copy_(inverse)
    if hasattr(rotary, "original_inv_freq"):
        rotary.original_inv_freq.copy_(inverse)
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16().float())


def _branches(model: Any) -> Iterator[nn.Linear]:
    for layer in model.model.text_model.layers:
        yield from (layer.self_attn.o_proj, layer.mlp.down_proj)
    for layer in model.model.vision_model.encoder.layers:
        yield from (layer.self_attn.out_proj, layer.mlp.fc2)


@torch.no_grad()
def plant_outliers(model: Any, seed: int = 1) -> None:
    """Enlarge one channel in a hundred of what goes into the linear layers, and shrink the weights that read it.

    Behind norms in both towers, and in the text stack's MLP between up and down; a power of two would change no bit, 40
    rounds anew.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs: list[tuple[list[Tensor], list[nn.Linear]]] = []
    for layer in model.model.text_model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        pairs.append(([layer.input_layernorm.weight], [attention.q_proj, attention.k_proj, attention.v_proj]))
        pairs.append(([layer.post_attention_layernorm.weight], [mlp.gate_proj, mlp.up_proj]))
        pairs.append(([mlp.up_proj.weight], [mlp.down_proj]))
    for layer in model.model.vision_model.encoder.layers:
        attention, norms = layer.self_attn, (layer.layer_norm1, layer.layer_norm2)
        pairs.append(
            ([norms[0].weight, norms[0].bias], [attention.q_proj, attention.k_proj, attention.v_proj]),
        )
        pairs.append(([norms[1].weight, norms[1].bias], [layer.mlp.fc1]))
    for makers, readers in pairs:
        width = len(makers[0])
        channels = torch.randperm(width, generator=generator)[: max(1, round(SHARE * width))]
        for maker in makers:
            maker[channels] *= OUTLIER
        for reader in readers:
            reader.weight[:, channels] /= OUTLIER
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16().float())


@dataclass(frozen=True)
class Distance:
    """Cosines over the positions of a prompt and over image tokens, and how often the likeliest token is the same."""

    logits_min: float
    logits_median: float
    largest: float
    same_top: float
    image_tokens_min: float
    isa: str


def inputs_of(config: Any, words: int = WORDS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (1, length) with one frame in their midst, and its pixels (1, 1, 3, size, size)."""
    random = np.random.default_rng(seed)
    vision = config.vision_config
    tokens = (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2
    ids = random.integers(3, config.text_config.vocab_size // 2, words)
    ids = np.concatenate([ids[: words // 2], np.full(tokens, config.image_token_id), ids[words // 2 :]])[None]
    return ids, random.uniform(-1, 1, (1, 1, 3, vision.image_size, vision.image_size)).astype(np.float32)


@torch.no_grad()
def reference(model: Any, ids: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Transformers' logits [length, vocabulary] and image tokens [tokens, hidden_size]."""
    encoded = model.model.get_image_features(torch.from_numpy(pixels)).pooler_output
    logits = model(input_ids=torch.from_numpy(ids), pixel_values=torch.from_numpy(pixels)).logits
    return logits[0].float().numpy(), torch.cat(list(encoded)).numpy()


def measure(
    directory: Path, options: dict[str, str], ids: np.ndarray, pixels: np.ndarray, expected: tuple[Any, Any]
) -> Distance:
    """Compare the native engine, from the files in `directory`, with what `reference` gave."""
    native = NativeSmolVLM.from_pretrained(directory, cache_positions=1024, **options)
    vision, _ = native.encode(native.frames(pixels), reuse=False)
    given = native.logits(ids, pixel_values=pixels)
    logits, features = expected
    cosines = _cosine(given, logits)
    return Distance(
        float(cosines.min()),
        float(np.median(cosines)),
        float(np.abs(given - logits).max()),
        float((given.argmax(-1) == logits.argmax(-1)).mean()),
        float(_cosine(vision, features).min()),
        native.isa,
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def save(model: Any, folder: str) -> None:
    """Save in bfloat16, which the weights are rounded to: half the file, so that the largest model fits beside it."""
    model.save_pretrained(folder, state_dict={name: value.bfloat16() for name, value in model.state_dict().items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--layers", type=int, help="layers of both towers, fewer than the config says")
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=list(WEIGHTS))
    parser.add_argument("--isa", nargs="+", default=[""], help="instruction sets, else the machine's preferred one")
    options = parser.parse_args()
    model = build(options.config, layers=options.layers)
    ids, pixels = inputs_of(model.config)
    print("weights   set         fixture   logits cosine min / median  largest difference  same top  image tokens, min")
    with tempfile.TemporaryDirectory() as folder:
        for fixture in ("plain", "outliers"):
            if fixture == "outliers":
                plant_outliers(model)
            save(model, folder)
            expected = reference(model, ids, pixels)
            for name in options.weights:
                for isa in options.isa:
                    if isa:
                        os.environ["FASTER_SMOLVLM_ISA"] = isa
                    d = measure(Path(folder), WEIGHTS[name], ids, pixels, expected)
                    print(
                        f"{name:<9} {d.isa:<11} {fixture:<9} {d.logits_min:.6f} / {d.logits_median:.6f}         "
                        f"{d.largest:.1e} of {expected[0].std():.2f}     {d.same_top:.3f}     {d.image_tokens_min:.6f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
