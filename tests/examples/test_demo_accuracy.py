"""The demo checkpoint answers what its card claims: exact answers on scenes and clips that training never drew."""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm import AutoModelForImageTextToText, AutoProcessor
from PIL import Image

from examples.train_demo.evaluate import Answer, accuracy, answer, changed
from examples.train_demo.heldout import Item, clip_items, scene_items
from examples.train_demo.media import MEDIA, picture

# Percent of exact answers on few scenes: some points under what the card gives for many.
FLOORS = {"describe": 85, "count": 90, "colour": 90, "shape": 90, "size": 85, "relation": 80, "motion": 80}


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return scene_items(60, seed=11) + clip_items(40, seed=11)


def ask(items: list[Item], dtype: torch.dtype) -> list[Answer]:
    model = AutoModelForImageTextToText.from_pretrained("demo", dtype=dtype)
    return answer(AutoProcessor.from_pretrained("demo"), model.eval(), items, size=64)


@pytest.fixture(scope="module")
def answers(items: list[Item]) -> list[Answer]:
    return ask(items, torch.float32)


@pytest.mark.parametrize("kind", FLOORS)
def test_accuracy(items: list[Item], answers: list[Answer], kind: str) -> None:
    right, asked = accuracy(items, answers)[kind]
    assert asked >= 15
    assert 100 * right / asked >= FLOORS[kind]


def test_bfloat16_changes_few_and_unsure_answers(items: list[Item], answers: list[Answer]) -> None:
    few = slice(None, None, 6)  # slow where the processor has no bfloat16
    margins = changed(answers[few], ask(items[few], torch.bfloat16))
    assert len(margins) <= 0.015 * len(items[few])
    assert max(margins, default=0.0) < 0.1


@pytest.mark.parametrize(
    ("media", "question", "expected"),
    [
        ({"type": "image", "path": "scene.png"}, "Describe the image.", "A red star left of a blue square."),
        ({"type": "image", "path": "scene.png"}, "What colour is the square?", "Blue."),
        ({"type": "video", "path": "clip.mp4"}, "Describe the video.", "A yellow circle moving to the right."),
        ({"type": "video", "path": "clip.mp4"}, "Which way does the circle move?", "To the right."),
    ],
)
def test_bundled_media(media: dict[str, str], question: str, expected: str) -> None:
    processor = AutoProcessor.from_pretrained("demo")
    model = AutoModelForImageTextToText.from_pretrained("demo", dtype=torch.float32).eval()
    media = media | {"path": str(MEDIA / media["path"])}
    talk = [{"role": "user", "content": [media, {"type": "text", "text": question}]}]
    inputs = processor.apply_chat_template(
        talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(ids, skip_special_tokens=True).strip() == expected


def test_bundled_picture_is_what_the_script_draws() -> None:
    assert Image.open(MEDIA / "scene.png").tobytes() == picture().tobytes()
