"""Held-out conversations: scenes and clips that no training step draws, each question as a prompt of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .clips import draw_clip
from .questions import Question, ask_clip, ask_scene
from .scenes import draw_scene

SEED = 2_000_000
FRAMES = (3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Item:
    """One question with its picture, or with the frames [frames, height, width, 3] and times of its clip."""

    question: Question
    media: Any
    seconds: tuple[int, ...] = ()
    duration: int = 0


def scene_items(count: int, seed: int = SEED) -> list[Item]:
    """Return the questions about ``count`` scenes, all formats of picture in turn."""
    rng = random.Random(f"{seed} scenes")
    grids = [(2, 2), (1, 2), (2, 2), (2, 1)]
    scenes = [draw_scene(rng, grids[i % len(grids)]) for i in range(count)]
    return [Item(question, scene.image) for scene in scenes for question in ask_scene(rng, scene)]


def clip_items(count: int, seed: int = SEED) -> list[Item]:
    """Return the questions about ``count`` clips."""
    rng = random.Random(f"{seed} clips")
    items = []
    for i in range(count):
        clip = draw_clip(rng, FRAMES[i % len(FRAMES)])
        frames = np.stack([np.asarray(frame) for frame in clip.frames])
        items += [Item(q, frames, tuple(clip.seconds), clip.duration) for q in ask_clip(rng, clip)]
    return items


def batches(items: list[Item], size: int) -> Iterator[list[int]]:
    """Yield indices of items that can share a batch: pictures, or clips of as many frames (the prompt names them)."""
    alike: dict[int, list[int]] = {}
    for i, item in enumerate(items):
        alike.setdefault(len(item.seconds), []).append(i)
    for group in alike.values():
        yield from (group[i : i + size] for i in range(0, len(group), size))


def encode(processor: Any, items: list[Item]) -> Any:
    """Return the model's inputs for a batch, through the chat template and the processor."""
    video = bool(items[0].seconds)
    content = {"type": "video" if video else "image"}
    talks = [[{"role": "user", "content": [content, {"type": "text", "text": i.question.text}]}] for i in items]
    prompts = processor.apply_chat_template(talks, add_generation_prompt=True)
    if not video:
        return processor(text=prompts, images=[[i.media] for i in items], padding=True, return_tensors="pt")
    metadata = [
        {
            "total_num_frames": len(i.seconds),
            "fps": 1.0,
            "duration": float(i.duration),
            "frames_indices": list(i.seconds),
        }
        for i in items
    ]
    clips = [[i.media] for i in items]
    return processor(text=prompts, videos=clips, video_metadata=metadata, padding=True, return_tensors="pt")
