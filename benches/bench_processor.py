"""The text side of the processor against Transformers': `python -m benches.bench_processor [CHECKPOINT_DIR]`.

Both sides get the same pixels for nothing, so that what is left is the prompt, the tokenizer and the bookkeeping.
Without a directory, the tokenizer of the real test data is used where FASTER_SMOLVLM_DATA names it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import transformers
from faster_smolvlm.processor.processing_smolvlm import SmolVLMProcessor
from faster_smolvlm.text.tokenization_smolvlm import SmolVLMTokenizer

from benches.timing import alternate, machine, table

WIDE = PIL.Image.new("RGB", (1280, 720))
TURN = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is written on the sign?"}]}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "It says that the shop is closed on Sundays."}]}


class FreePixels(transformers.SmolVLMImageProcessor):  # type: ignore[misc]
    """Says that every picture is cut into 3×4 tiles, without looking at it."""

    def __call__(self, images: Any, **kwargs: Any) -> Any:
        rows, cols = [[3] * len(sample) for sample in images], [[4] * len(sample) for sample in images]
        pixels = torch.empty(len(images), 1, 3, 2, 2)
        mask = torch.empty(len(images), 1, 2, 2, dtype=torch.int64)
        return transformers.BatchFeature(
            {"pixel_values": pixels, "pixel_attention_mask": mask, "rows": rows, "cols": cols}
        )


def cases(folder: Path) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    reference = transformers.AutoProcessor.from_pretrained(folder)
    reference.image_processor = FreePixels()
    ours = SmolVLMProcessor(
        reference.image_processor,
        SmolVLMTokenizer.from_pretrained(folder),
        None,
        reference.image_seq_len,
        reference.chat_template,
    )
    prompt = ours.apply_chat_template([TURN], add_generation_prompt=True)
    chat = [TURN, ANSWER] * 4 + [TURN]
    long_chat = ours.apply_chat_template(chat, add_generation_prompt=True)
    long_text = "The quick brown fox jumps over the lazy dog, 1234 times. " * 200
    ids = np.array(ours.tokenizer([long_text])["input_ids"])
    tensors = {"return_tensors": "pt", "padding": True}

    def each(call: Callable[[Any], Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        check_same(call(ours), call(reference))
        return lambda: call(ours), lambda: call(reference)

    return {
        "one picture": each(lambda p: p(text=prompt, images=WIDE, **tensors)),
        "16 pictures, one prompt each": each(lambda p: p(text=[prompt] * 16, images=[[WIDE]] * 16, **tensors)),
        "five pictures in a conversation": each(lambda p: p(text=long_chat, images=[WIDE] * 5, **tensors)),
        "text only, 2,800 tokens": each(lambda p: p(text=long_text, return_tensors="pt")),
        "16 short texts": each(lambda p: p(text=["What is it?"] * 16, **tensors)),
        "chat template, nine turns": each(lambda p: p.apply_chat_template(chat, add_generation_prompt=True)),
        "decode 2,800 tokens": each(lambda p: p.batch_decode(ids, skip_special_tokens=True)),
    }


def check_same(ours: Any, reference: Any) -> None:
    """A benchmark of two answers that differ is worth nothing."""
    if not hasattr(reference, "keys"):
        if ours != reference:
            raise SystemExit("the two sides differ")
    elif any(not torch.equal(ours[key], reference[key]) for key in ("input_ids", "attention_mask")):
        raise SystemExit("the two sides differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("FASTER_SMOLVLM_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("folder", nargs="?", type=Path, default=data / "smolvlm2-256m-config")
    parser.add_argument("--rounds", type=int, default=51)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    rows = []
    for name, (ours, reference) in cases(arguments.folder).items():
        times = alternate({"Transformers": reference, "faster_smolvlm": ours}, rounds=arguments.rounds, warm_up=5)
        ratio = times["Transformers"].median / times["faster_smolvlm"].median
        rows.append([name, str(times["Transformers"]), str(times["faster_smolvlm"]), f"{ratio:.1f}×"])
    print(machine("transformers", "tokenizers"))
    print(table(["text side of the processor", "Transformers", "faster_smolvlm", "ratio"], rows))


if __name__ == "__main__":
    main()
