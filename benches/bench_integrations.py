"""Time pipelines that others wrote as they are and accelerated: the share of the processor, and all of it.

python -m benches.bench_integrations [--config DIR] [--model DIR] [--rounds N] [--warm-up N] [--only NAME …]

The share of the processor is what each pipeline does before its model runs, with the processor and tokenizer of
`--config` (the real 256M one; the bundled checkpoint's where it is absent). The whole runs the model of `--model` (the
bundled checkpoint): with a model this small the processor weighs more than it does beside a real one, and answers are
some ten tokens long. What is not installed is left out, by name.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import transformers
from faster_smolvlm.integrations.transformers import disable, enable
from PIL import Image

from benches.timing import alternate, machine, table
from tests.helpers.contract import as_idefics3, load, question

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("FASTER_SMOLVLM_DATA", ROOT.parent / "shared" / "data"))
DEMO = Path(str(files("faster_smolvlm"))) / "demo"
TOKENS = 24
Run = Callable[[], Any]


def photo() -> Image.Image:
    """A photograph of 1920×1080."""
    from skimage import data

    return Image.fromarray(data.astronaut()).resize((1920, 1080))


def page() -> Image.Image:
    """A scanned page as docling renders A4 at scale 2."""
    from skimage import data

    return Image.fromarray(data.page()).convert("RGB").resize((1190, 1684))


class Shares:
    """What each pipeline asks of its processor."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.smolvlm = folder
        self.idefics3 = as_idefics3(folder, scratch / "idefics3")

    def transformers(self) -> Run:
        processor = transformers.AutoProcessor.from_pretrained(self.smolvlm)
        pipe = transformers.pipeline("image-text-to-text", model=load(DEMO)[1], processor=processor)
        chat = transformers.utils.chat_template_utils.Chat(question(image=photo()))
        return lambda: pipe.preprocess(chat)

    def docling(self) -> Run:
        processor = transformers.AutoProcessor.from_pretrained(self.idefics3)
        processor.tokenizer.padding_side = "left"
        picture = page()
        prompt = processor.apply_chat_template(question("Convert this page to docling."), add_generation_prompt=True)
        return lambda: processor(text=[prompt], images=[picture], return_tensors="pt", padding=True)

    def trl(self) -> Run:
        from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

        processor = transformers.AutoProcessor.from_pretrained(self.smolvlm)
        collator = DataCollatorForVisionLanguageModeling(processor, max_length=None)
        picture, said = photo(), {"role": "assistant", "content": [{"type": "text", "text": "A woman in a suit."}]}
        return lambda: collator([{"images": [picture], "messages": [*question(), said]} for _ in range(2)])

    def colpali_engine(self) -> Run:
        from colpali_engine.models import ColIdefics3Processor

        processor = ColIdefics3Processor.from_pretrained(self.idefics3)
        pages = [page()] * 2
        return lambda: processor.process_images(pages)

    def smolagents(self) -> Run:
        processor = transformers.AutoProcessor.from_pretrained(self.smolvlm)
        chat = question(image=photo())
        settings = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return lambda: processor.apply_chat_template(chat, **settings)

    def vllm(self) -> Run:
        processor = transformers.AutoProcessor.from_pretrained(self.smolvlm)
        call = {"text": "<image>", "images": [photo()], "return_tensors": "pt", "input_data_format": "channels_last"}
        return lambda: processor(**call)

    def sglang(self) -> Run:
        processor = transformers.AutoProcessor.from_pretrained(self.smolvlm)
        call = {"text": ["<image>what?"], "images": [[photo()]], "padding": True, "return_tensors": "pt"}
        return lambda: processor(**call)


class Whole:
    """The pipelines with a model."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.smolvlm = folder
        self.models = scratch / "models"
        self.models.mkdir()
        self.idefics3 = as_idefics3(folder, self.models / "ibm-granite--granite-docling-258M")

    def transformers(self) -> Run:
        pipe = transformers.pipeline("image-text-to-text", model=str(self.smolvlm), dtype=torch.float32, device="cpu")
        chat = question(image=photo())
        return lambda: pipe(text=chat, max_new_tokens=TOKENS)

    def docling(self) -> Run:
        from docling.datamodel.base_models import InputFormat
        from docling.datamodel.pipeline_options import VlmConvertOptions, VlmPipelineOptions
        from docling.datamodel.vlm_engine_options import TransformersVlmEngineOptions
        from docling.document_converter import DocumentConverter, ImageFormatOption
        from docling.pipeline.vlm_pipeline import VlmPipeline

        options = VlmConvertOptions.from_preset("granite_docling", engine_options=TransformersVlmEngineOptions())
        options.model_spec.max_new_tokens = TOKENS
        settings = VlmPipelineOptions(vlm_options=options, artifacts_path=self.models)
        kind = ImageFormatOption(pipeline_cls=VlmPipeline, pipeline_options=settings)
        converter = DocumentConverter(format_options={InputFormat.IMAGE: kind})
        path = self.models / "page.png"
        page().save(path)
        converter.initialize_pipeline(InputFormat.IMAGE)
        return lambda: converter.convert(path)

    def trl(self) -> Run:
        collate, (_, model) = Shares.trl(self), load(self.smolvlm)  # type: ignore[arg-type]
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

        def step() -> None:
            model(**collate()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def colpali_engine(self) -> Run:
        from colpali_engine.models import ColIdefics3

        prepare = Shares.colpali_engine(self)  # type: ignore[arg-type]
        model = ColIdefics3.from_pretrained(self.idefics3, dtype=torch.float32).eval()
        return torch.inference_mode()(lambda: model(**prepare()))

    def smolagents(self) -> Run:
        import smolagents

        model = smolagents.TransformersModel(model_id=str(self.smolvlm), device_map="cpu", max_new_tokens=TOKENS)
        asked = [smolagents.ChatMessage.from_dict({"role": "user", "content": question(image=photo())[0]["content"]})]
        return lambda: model.generate(asked)


PIPELINES = {
    "transformers": "transformers.pipeline, 1920×1080",
    "docling": "docling, VLM pipeline, one page",
    "trl": "TRL, SFT collator and step, 2 × 1920×1080",
    "colpali_engine": "colpali-engine, 2 pages",
    "smolagents": "smolagents, 1920×1080",
    "vllm": "vLLM's processor call, 1920×1080",
    "sglang": "SGLang's processor call, 1920×1080",
}
AS_CALLS = ("vllm", "sglang")


def compare(build: Callable[[], Run], rounds: int, warm_up: int) -> list[str]:
    """Build a pipeline as it is and with `enable()` on, time both in turn; returns two times and the ratio."""
    plain = build()
    enable()
    try:
        ours = build()
    finally:
        disable()
    times = alternate({"plain": plain, "ours": ours}, rounds=rounds, warm_up=warm_up)
    return [str(times["plain"]), str(times["ours"]), f"{times['plain'].median / times['ours'].median:.1f}×"]


def main() -> None:
    """Run what is installed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = DATA / "smolvlm2-256m-config"
    parser.add_argument("--config", type=Path, default=real if real.is_dir() else DEMO, help="of the processor")
    parser.add_argument("--model", type=Path, default=DEMO, help="a SmolVLM checkpoint for the whole")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=PIPELINES, default=list(PIPELINES))
    options = parser.parse_args()
    times = {"rounds": options.rounds, "warm_up": options.warm_up}
    transformers.logging.set_verbosity_error()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        shares, whole = Shares(options.config, Path(temporary)), Whole(options.model, Path(temporary))
        for name in options.only:
            if name not in AS_CALLS and importlib.util.find_spec(name) is None:
                print(f"{name} is not installed and left out")
                continue
            row = [PIPELINES[name], *compare(getattr(shares, name), **times)]
            build = getattr(whole, name, None)
            rows.append(row + (compare(build, **times) if build else [""] * 3))
    header = ["pipeline", "processor", "ours", "ratio", "whole", "ours", "ratio"]
    print(machine("torch", "transformers"), f"\nthreads: {torch.get_num_threads()}; {options.config.name}\n")
    print(table(header, rows))


if __name__ == "__main__":
    main()
