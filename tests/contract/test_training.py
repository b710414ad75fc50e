"""peft and TRL, run as they are and with `enable()` on: batches, losses, drawn completions and texts are equal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from tests.helpers.contract import SERVED, Twice, answer, load, question, same


def scenes() -> list[tuple[Image.Image, str]]:
    """Flat pictures with one square each, and what is to be said about them."""
    made = []
    for index, (name, colour) in enumerate([("red", (220, 40, 40)), ("blue", (40, 40, 220)), ("green", (30, 160, 60))]):
        picture = Image.new("RGB", (120, 90), (240, 240, 240))
        picture.paste(colour, (20 + 10 * index, 20, 60 + 10 * index, 60))
        made.append((picture, f"A {name} square."))
    return made


def test_peft_lora(demo: Path, scene: Image.Image, twice: Twice, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    engines = []

    def run() -> Any:
        processor, model = load(demo)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
        tuned = peft.get_peft_model(model, config)
        tuned.train()
        optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-3)
        losses = []
        for step in range(20):
            picture, said = scenes()[step % 3]
            text = processor.apply_chat_template(question(), add_generation_prompt=True) + " " + said
            batch = processor(text=text, images=[picture], return_tensors="pt")
            loss = tuned(**batch, labels=batch["input_ids"].clone()).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        tuned.eval()
        with_adapters = answer(processor, tuned, scene)
        engines.append(getattr(model, "generation_engine", None))
        folder = tmp_path / f"adapter-{len(engines)}"
        tuned.save_pretrained(folder)
        again = peft.PeftModel.from_pretrained(load(demo)[1], folder)
        assert answer(processor, again, scene) == with_adapters
        merged = tuned.merge_and_unload()
        after = answer(processor, merged, scene)
        engines.append(getattr(merged, "generation_engine", None))
        merged.save_pretrained(folder / "merged")
        assert transformers.AutoConfig.from_pretrained(folder / "merged").architectures == [type(merged).__name__]
        return losses, with_adapters, after

    plain, fast = twice(run)
    assert fast == plain
    assert plain[0][-1] < plain[0][0]
    assert engines[2].name == "transformers"
    assert "peft" in engines[2].reason
    assert engines[3].name == SERVED


def test_trl_sft(demo: Path, twice: Twice, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    examples = [
        {
            "images": [picture],
            "messages": [*question(), {"role": "assistant", "content": [{"type": "text", "text": said}]}],
        }
        for picture, said in scenes()
    ]

    def run() -> Any:
        processor, model = load(demo)
        collator = DataCollatorForVisionLanguageModeling(processor, max_length=None)
        batch = collator(copy.deepcopy(examples))
        rows = [
            {
                "images": [picture],
                "prompt": [{"role": "user", "content": "Describe the image."}],
                "completion": [{"role": "assistant", "content": said}],
            }
            for picture, said in scenes()
        ]
        arguments = SFTConfig(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, report_to=[], max_length=None,
            bf16=False, use_cpu=True, save_strategy="no",
        )  # fmt: skip
        trainer = SFTTrainer(
            model, arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=processor
        )
        return dict(batch), trainer.train().training_loss

    plain, fast = twice(run)
    same(fast[0], plain[0])
    assert fast[1] == plain[1]


def test_trl_grpo(demo: Path, twice: Twice, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from trl import GRPOConfig, GRPOTrainer

    rows = [
        {"image": picture, "prompt": [{"role": "user", "content": "Describe the image."}], "said": said}
        for picture, said in scenes()
    ]
    engines = []

    def run() -> Any:
        processor, model = load(demo)
        drawn: list[str] = []

        def reward(completions: list[Any], **columns: Any) -> list[float]:
            drawn.extend(done[0]["content"] for done in completions)
            return [float(len(done[0]["content"])) for done in completions]

        arguments = GRPOConfig(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, num_generations=2, report_to=[],
            max_completion_length=8, temperature=3.0, bf16=False, use_cpu=True, save_strategy="no",
        )  # fmt: skip
        trainer = GRPOTrainer(
            model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=processor,
        )
        loss = trainer.train().training_loss
        engines.append(getattr(model, "generation_engine", None))
        return drawn, loss

    plain, fast = twice(run)
    assert len({*plain[0]}) == len(plain[0]) > 1
    assert fast == plain
    assert engines[1].name == "transformers"  # TRL replaces the model's forward, which our engines do not run
    assert "forward of its own" in engines[1].reason
