"""What a fresh process costs: import, first token, peak memory on a photograph, and the size of an environment.

    python -m benches.bench_cold_start --config DIR [--threads 2] [--rounds 5] [--wheel FILE]

DIR holds a real `config.json` with the processor's files; the weights are random, written once as bfloat16. With
--wheel, the wheel and its dependencies are installed into a fresh environment, which has to come without torch, and the
processes run there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from faster_smolvlm import SmolVLMConfig
from faster_smolvlm.cli.bench import photograph
from faster_smolvlm.native.random_weights import random_tensors

IMPORT = "import faster_smolvlm"
ANSWER = """
import json, sys
from faster_smolvlm import SmolVLM
from faster_smolvlm.cli.bench import peak_memory
directory, picture, tokens, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
vlm = SmolVLM.from_pretrained(directory, device="cpu", **options)
images = [picture] if picture else []
result = vlm.generate("Describe the image.", images=images, max_new_tokens=tokens, min_new_tokens=tokens)
assert not {"torch", "transformers"} & set(sys.modules), "torch was imported"
print(json.dumps([peak_memory(), result.usage.prompt_tokens]))
"""
WEIGHTS: dict[str, dict[str, str]] = {"bfloat16": {}, "int8": {"quantization": "int8"}}


def write_checkpoint(config_directory: Path, directory: Path) -> None:
    """Copy the files of a configuration and add random weights."""
    for file in config_directory.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, directory)
    config = SmolVLMConfig.from_pretrained(config_directory)
    header: dict[str, Any] = {}
    end = 0
    tensors = random_tensors(config)
    for name, _, shape, values in tensors:
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    text = json.dumps(header).encode()
    with open(directory / "model.safetensors", "wb") as file:  # NumPy has no bfloat16, so safetensors.numpy neither
        file.write(len(text).to_bytes(8, "little") + text)
        for *_, values in tensors:
            file.write(values.data)


def environment(folder: Path, wheel: Path) -> str:
    """Install the wheel with its dependencies; return the interpreter, after printing what it takes on disk."""
    venv.create(folder, with_pip=True)
    before = _size(folder)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-compile", str(wheel)], check=True)
    subprocess.run([python, "-c", "import importlib.util as u; assert u.find_spec('torch') is None"], check=True)
    print(f"environment without torch: {(_size(folder) - before) / 1e6:.0f} MB (wheel and dependencies, pip left out)")
    return python


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _run(python: str, *arguments: str) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run([python, "-c", *arguments], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wheel", type=Path)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = environment(folder / "venv", options.wheel) if options.wheel else sys.executable
        (folder / "model").mkdir()
        write_checkpoint(options.config, folder / "model")
        picture = folder / "photograph.jpg"
        picture.write_bytes(photograph())
        bare, imported = ([_run(python, code)[0] for _ in range(options.rounds + 1)][1:] for code in ("pass", IMPORT))
        print(f"import faster_smolvlm: {1e3 * (statistics.median(imported) - statistics.median(bare)):.0f} ms")
        for kind, chosen in WEIGHTS.items():
            arguments = json.dumps({**chosen, "num_threads": options.threads})
            text = [_run(python, ANSWER, str(folder / "model"), "", "1", arguments) for _ in range(options.rounds + 1)]
            seconds = statistics.median(seconds for seconds, _ in text[1:])
            _, output = _run(python, ANSWER, str(folder / "model"), str(picture), "16", arguments)
            peak, tokens = json.loads(output)
            print(
                f"{kind}: process start to end with the first token, text alone: {seconds:.2f} s; peak memory of an "
                f"answer about 1024x768 pixels ({tokens} prompt tokens): {peak / 1e6:.0f} MB"
            )


if __name__ == "__main__":
    main()
