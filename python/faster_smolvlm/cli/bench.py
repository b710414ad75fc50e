"""`faster-smolvlm bench`: what one question about one picture takes on this machine, beside what the machine can do."""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .terminal import DEFAULT_MODEL, positive

if TYPE_CHECKING:
    from ..checkpoint.configuration_smolvlm import SmolVLMConfig
    from ..native import NativeSmolVLM
    from ..vlm.answers import Result
    from ..vlm.smolvlm import SmolVLM

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROMPT = "Describe the image."
PICTURE_SIZE = (1024, 768)


def run(options: argparse.Namespace) -> int:
    """Load the model, ask `options.rounds` times, and print the medians."""
    from .._rust import machine_limits

    vlm = _load(options)
    model = cast("NativeSmolVLM", vlm.model)
    picture = options.picture or photograph()
    ask: dict[str, Any] = {"images": [picture], "max_new_tokens": options.tokens, "min_new_tokens": options.tokens}
    vlm.generate(PROMPT, reuse=False, **ask)  # the first call takes its memory from the system
    results = [vlm.generate(PROMPT, reuse=False, **ask) for _ in range(options.rounds)]
    again = _second_question(vlm, ask)
    memory = peak_memory()  # before the measurement of the machine takes its own
    limits = machine_limits(model.num_threads)
    record = _record(vlm, results, again, limits) | {"peak_memory": memory}
    print(json.dumps(record) if options.json else _table(record), flush=True)
    return 0


def _load(options: argparse.Namespace) -> SmolVLM:
    from ..generation.choice import ENGINE_VARIABLE, forced_engine
    from ..vlm.smolvlm import SmolVLM

    if forced_engine() == "torch":
        raise ValueError(f"bench measures the native engine, but {ENGINE_VARIABLE} asks for torch: unset it")
    chosen = {
        "dtype": options.dtype,
        "quantization": options.quantization,
        "num_threads": options.threads,
        "cache_positions": options.cache_positions,
    }
    if not options.random_weights:
        return SmolVLM.from_pretrained(options.model, device="cpu", **chosen)
    from ..checkpoint.configuration_smolvlm import SmolVLMConfig
    from ..native import NativeSmolVLM
    from ..native.random_weights import random_tensors
    from ..processor.processing_smolvlm import SmolVLMProcessor

    config = SmolVLMConfig.from_pretrained(options.model)
    tensors = random_tensors(config)
    chosen["dtype"] = "bfloat16" if options.dtype == "auto" else options.dtype
    start = time.perf_counter()
    processor = SmolVLMProcessor.from_pretrained(options.model)
    model = NativeSmolVLM(tensors, config, **chosen)
    return SmolVLM(model, processor, load_seconds=time.perf_counter() - start)


def photograph() -> bytes:
    """Return a JPEG file with the detail of a photograph: shades with noise of several scales."""
    import numpy as np
    from PIL import Image

    width, height = PICTURE_SIZE
    random = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for scale in (256, 64, 16, 4):
        noise = random.uniform(0, 255, (height // scale + 1, width // scale + 1, 3)).astype(np.uint8)
        total += np.asarray(Image.fromarray(noise).resize(PICTURE_SIZE, Image.Resampling.BICUBIC), np.float32) / 4
    file = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _second_question(vlm: SmolVLM, ask: dict[str, Any]) -> Result:
    """Ask twice about the picture with what is kept between calls; return the second answer."""
    vlm.generate("What is it?", **ask | {"max_new_tokens": 1, "min_new_tokens": 1})
    return vlm.generate("And where?", **ask)


def _record(
    vlm: SmolVLM, results: list[Result], again: Result, limits: tuple[float, float, float | None]
) -> dict[str, Any]:
    def median(name: str) -> float:
        return float(statistics.median(getattr(result.timings, name) for result in results))

    read, flops, bfloat16_flops = limits
    model = cast("NativeSmolVLM", vlm.model)
    usage, config = results[0].usage, model.config
    vision, prefill, step = median("vision"), median("prefill"), median("per_token")
    return {
        "isa": model.isa,
        "dtype": model.dtype,
        "num_threads": model.num_threads,
        "read_bytes_per_second": read,
        "float32_flops": flops,
        "bfloat16_flops": bfloat16_flops,
        "frames": usage.frames,
        "prompt_tokens": usage.prompt_tokens,
        "load": vlm.load_seconds,
        "image_decode": median("image_decode"),
        "preprocessing": median("preprocessing"),
        "vision": vision,
        "vision_flops": usage.frames * _vision_operations(config) / vision if vision else 0.0,
        "prefill": prefill,
        "prefill_flops": _prefill_operations(config, usage.prompt_tokens) / prefill,
        "per_token": step,
        "per_token_bytes_per_second": model.rust.text_bytes / step if step else 0.0,
        "second_question_to_first_token": again.timings.vision + again.timings.prefill,
    }


def _table(record: dict[str, Any]) -> str:
    def share(rate: float, limit: float) -> str:
        return f"{rate / limit:.0%}"

    read, peaks = record["read_bytes_per_second"], {"float32": record["float32_flops"]}
    if record["bfloat16_flops"]:
        peaks["bfloat16"] = record["bfloat16_flops"]
    name = "float32" if record["dtype"] == "float32" else [*peaks][-1]
    flops = peaks[name]
    arithmetic = f"{{:.0f}} GFLOP/s, {{}} of {flops / 1e9:.0f} ({name})"
    first = record["image_decode"] + record["preprocessing"] + record["vision"] + record["prefill"]
    tokens, frames = record["prompt_tokens"], record["frames"]
    lines = [
        ("load and pack the weights", record["load"], ""),
        ("decode the picture", record["image_decode"], ""),
        ("preprocessing", record["preprocessing"], ""),
        (
            f"vision, {frames} frames",
            record["vision"],
            arithmetic.format(record["vision_flops"] / 1e9, share(record["vision_flops"], flops)),
        ),
        (
            f"prefill, {tokens} tokens",
            record["prefill"],
            f"{tokens / record['prefill']:.0f} tokens/s, "
            + arithmetic.format(record["prefill_flops"] / 1e9, share(record["prefill_flops"], flops)),
        ),
        ("to the first token", first, ""),
        ("second question, to the first token", record["second_question_to_first_token"], ""),
    ]
    if record["per_token"]:
        rate = record["per_token_bytes_per_second"]
        speed = f"{1 / record['per_token']:.1f} tokens/s, {rate / 1e9:.1f} GB/s of weights, {share(rate, read)} of {{}}"
        lines.append(("per token", record["per_token"], speed.format(f"{read / 1e9:.1f}")))
    head = (
        f"{record['isa']}, {record['dtype']}, {record['num_threads']} threads; this machine, measured now: "
        f"{read / 1e9:.1f} GB/s, " + ", ".join(f"{rate / 1e9:.0f} GFLOP/s ({name})" for name, rate in peaks.items())
    )
    width = max(len(name) for name, *_ in lines)
    rows = [f"  {name:<{width}}  {seconds * 1e3:>9.1f} ms  {note}".rstrip() for name, seconds, note in lines]
    memory = f"  {'peak memory':<{width}}  {record['peak_memory'] / 1e6:>9.0f} MB"
    return "\n".join([head, *rows, memory])


def _vision_operations(config: SmolVLMConfig) -> float:
    """Return the multiplications and additions of one frame, connector included."""
    vision = config.vision_config
    size, patch, width = vision.image_size, vision.patch_size, vision.hidden_size
    assert isinstance(size, int)
    assert isinstance(patch, int)
    patches = (size // patch) ** 2
    layer = 4 * width**2 + 2 * width * vision.intermediate_size + 2 * patches * width
    embedding = width * patch**2 * vision.num_channels
    return 2.0 * patches * (vision.num_hidden_layers * layer + embedding + width * config.text_config.hidden_size)


def _prefill_operations(config: SmolVLMConfig, tokens: int) -> float:
    """Return those of a prompt, with the head for its last token."""
    text = config.text_config
    head_dim = text.head_dim or text.hidden_size // text.num_attention_heads
    keys = text.num_key_value_heads or text.num_attention_heads
    attention = text.hidden_size * head_dim * (2 * text.num_attention_heads + 2 * keys)
    mlp = 3 * text.hidden_size * text.intermediate_size
    scores = tokens * text.num_attention_heads * head_dim  # half the keys, twice: scores and values
    layers = text.num_hidden_layers * (attention + mlp + scores) * tokens
    return 2.0 * (layers + text.hidden_size * text.vocab_size)


def peak_memory() -> int:
    """Return how many bytes the process held at its peak; 0 if the system does not say."""
    try:
        with open("/proc/self/status") as lines:  # getrusage counts the process that started this one, too
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def add_parser(commands: Commands) -> None:
    """Add the command to `faster-smolvlm`."""
    parser = commands.add_parser(
        "bench",
        help="measure loading, vision, prefill and decoding on this machine",
        description="Ask one question about one picture on the CPU and print what each part takes, with the bandwidth "
        "and the arithmetic that the machine reaches beside it.",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="ID|DIR|demo", help="as in describe")
    parser.add_argument(
        "--random-weights", action="store_true", help="need only the configuration and the processor's files of --model"
    )
    parser.add_argument("--picture", type=Path, help="ask about this file instead of a generated 1024x768 JPEG")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--quantization", choices=("int8",))
    parser.add_argument("--threads", type=positive, metavar="N", help="threads that compute (default: all cores)")
    parser.add_argument(
        "--cache-positions",
        type=positive,
        metavar="N",
        help="tokens that the key/value cache holds (default: twice the longest sequence)",
    )
    parser.add_argument("--tokens", type=positive, default=32, metavar="N", help="tokens to generate (default: 32)")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="medians of N answers (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
