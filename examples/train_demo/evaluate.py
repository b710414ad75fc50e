"""Ask about held-out scenes and clips: ``python -m examples.train_demo.evaluate --scenes 500 --clips 200``.

Prints, by kind of question, how many answers are exactly right; how sure the model is of its tokens (how far the best
logit is above the next one); and how many answers another precision changes.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch

from .heldout import Item, batches, clip_items, encode, scene_items

LONGEST = 32  # new tokens; the longest answer has about half as many
NATIVE_BATCH = 8  # the native engine's cache holds two sequences of full length unless asked otherwise


@dataclass(frozen=True)
class Answer:
    """The ids of an answer up to its end token, its text, and the margin of each id over the next best one."""

    ids: tuple[int, ...]
    text: str
    margins: tuple[float, ...]


def answer(processor: Any, model: Any, items: list[Item], size: int = 32, show: bool = False) -> list[Answer]:
    """Answer every item greedily, ``size`` at a time."""
    answers: dict[int, Answer] = {}
    end = model.generation_config.eos_token_id
    begin = time.monotonic()
    for chosen in batches(items, size):
        inputs = encode(processor, [items[i] for i in chosen])
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            out = model.generate(
                **inputs, max_new_tokens=LONGEST, do_sample=False, return_dict_in_generate=True, output_scores=True
            )
        ids = out.sequences[:, inputs["input_ids"].shape[1] :]
        best = torch.stack([step.float().topk(2).values for step in out.scores], 1)
        for i, row, margins in zip(chosen, ids.tolist(), (best[..., 0] - best[..., 1]).tolist(), strict=True):
            stop = row.index(end) + 1 if end in row else len(row)
            text = processor.decode(row[:stop], skip_special_tokens=True).strip()
            answers[i] = Answer(tuple(row[:stop]), text, tuple(margins[:stop]))
        if show:
            print(f"\r{len(answers)}/{len(items)} answers, {time.monotonic() - begin:.0f} s", end="", flush=True)
    if show:
        print()
    return [answers[i] for i in range(len(items))]


def answer_native(processor: Any, model: Any, items: list[Item], size: int = 32, show: bool = False) -> list[Answer]:
    """As ``answer``, by a ``NativeSmolVLM``; margins are not asked for, so it decodes as it does for users."""
    from faster_smolvlm.native import start_generation

    answers: dict[int, Answer] = {}
    begin = time.monotonic()
    for chosen in batches(items, size):
        inputs = {key: value.numpy() for key, value in encode(processor, [items[i] for i in chosen]).items()}
        with start_generation(model, **inputs, max_new_tokens=LONGEST) as call:
            for _ in call:
                pass
        rows = call.ids[:, call.prompt_length :].tolist()
        for i, row, length in zip(chosen, rows, call.lengths, strict=True):
            text = processor.decode(row[:length], skip_special_tokens=True).strip()
            answers[i] = Answer(tuple(row[:length]), text, ())
        if show:
            print(f"\r{len(answers)}/{len(items)} answers, {time.monotonic() - begin:.0f} s", end="", flush=True)
    if show:
        print()
    return [answers[i] for i in range(len(items))]


def accuracy(items: list[Item], answers: list[Answer]) -> dict[str, tuple[int, int]]:
    """Return, by kind, how many answers are exactly right and how many were asked for."""
    asked = Counter(item.question.kind for item in items)
    right = Counter(i.question.kind for i, a in zip(items, answers, strict=True) if a.text == i.question.answer)
    return {kind: (right[kind], asked[kind]) for kind in sorted(asked)}


def changed(before: list[Answer], after: list[Answer]) -> list[float]:
    """Return, for every answer that differs, the margin it had at its first differing token."""
    margins = []
    for old, new in zip(before, after, strict=True):
        if old.ids != new.ids:
            at = next((i for i, (a, b) in enumerate(zip(old.ids, new.ids, strict=False)) if a != b), len(old.ids) - 1)
            margins.append(old.margins[at])
    return sorted(margins)


def report_accuracy(items: list[Item], answers: list[Answer]) -> None:
    table = accuracy(items, answers)
    print(f"\n{'kind':<16}{'right':>7}{'asked':>7}{'exact':>9}")
    for video, name in ((False, "all pictures"), (True, "all clips")):
        kinds = {i.question.kind for i in items if bool(i.seconds) == video}
        if not kinds:
            continue
        for kind in sorted(kinds):
            right, asked = table[kind]
            print(f"{kind:<16}{right:>7}{asked:>7}{100 * right / asked:>8.1f}%")
        right, asked = (sum(table[kind][i] for kind in kinds) for i in (0, 1))
        print(f"{name:<16}{right:>7}{asked:>7}{100 * right / asked:>8.1f}%")


def report_margins(answers: list[Answer]) -> None:
    points = torch.tensor([0.0, 0.01, 0.05, 0.1, 0.5])
    print(f"\n{'margins':<24}{'min':>8}{'1 %':>8}{'5 %':>8}{'10 %':>8}{'median':>8}")
    tokens = torch.tensor([margin for a in answers for margin in a.margins])
    for name, margins in (
        ("of tokens", tokens),
        ("smallest of an answer", torch.tensor([min(a.margins) for a in answers])),
    ):
        print(f"{name:<24}" + "".join(f"{v:>8.3f}" for v in margins.quantile(points).tolist()))


def load(name: str, checkpoint: str) -> tuple[Any, Any]:
    """Load processor and model of a variant: a dtype, or a library and a dtype as in ``transformers:float32``.

    ``native:float32``, ``native:bfloat16`` and ``native:int8`` are the native engine's.
    """
    library, _, dtype = name.rpartition(":")
    if library == "native":
        from faster_smolvlm import SmolVLM

        options = {"quantization": dtype} if dtype == "int8" else {"dtype": dtype}
        vlm = SmolVLM.from_pretrained(checkpoint, device="cpu", **options)
        return vlm.processor, vlm.model
    module = importlib.import_module(library or "faster_smolvlm")
    folder = str(resources.files("faster_smolvlm") / "demo") if checkpoint == "demo" else checkpoint
    model = module.AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype))
    return module.AutoProcessor.from_pretrained(folder), model.eval()


def report_changes(name: str, items: list[Item], before: list[Answer], after: list[Answer]) -> None:
    margins = changed(before, after)
    right = sum(a.text == i.question.answer for i, a in zip(items, after, strict=True))
    share, worst = 100 * len(margins) / len(items), max(margins, default=0.0)
    print(f"\n{name} against float32: {len(margins)} of {len(items)} answers changed ({share:.2f} %), "
          f"largest margin among them {worst:.3f}; {100 * right / len(items):.1f} % exact")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="a checkpoint folder, or the one in the package")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument(
        "--against",
        nargs="*",
        default=["bfloat16"],
        help="dtypes, or transformers:float32, native:int8 and the like",
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="threads of torch, 0 for its own choice")
    parser.add_argument("--wrong", type=int, default=0, help="print this many wrong answers")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    items = scene_items(options.scenes) + clip_items(options.clips)
    answers: dict[str, list[Answer]] = {}
    for name in ("float32", *options.against):
        print(f"{name}:")
        native = name.startswith("native:")
        ask, batch = (answer_native, min(options.batch, NATIVE_BATCH)) if native else (answer, options.batch)
        answers[name] = ask(*load(name, options.model), items, batch, show=True)
    report_accuracy(items, answers["float32"])
    report_margins(answers["float32"])
    for name in options.against:
        report_changes(name, items, answers["float32"], answers[name])
    wrong = [
        (i.question, a.text) for i, a in zip(items, answers["float32"], strict=True) if a.text != i.question.answer
    ]
    for question, text in wrong[: options.wrong]:
        print(f"{question.kind}: {question.text} {question.answer!r}, answered {text!r}")


if __name__ == "__main__":
    main()
