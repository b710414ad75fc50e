"""Batches: scenes or clips drawn for one training step, as pixels, packed questions and dense labels."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from faster_smolvlm import SmolVLMImageProcessor, SmolVLMVideoProcessor

from .clips import draw_clip
from .dense import dense_labels
from .packing import Packed, Packer
from .prompts import image_prompt, opening, video_prompt
from .questions import Question, ask_clip, ask_scene
from .scenes import TILE, UNITS, draw_scene

PROCESSOR: dict[str, Any] = {
    "size": {"longest_edge": UNITS},
    "max_image_size": {"longest_edge": TILE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


@dataclass
class Batch:
    """Pixels [batch, frames, 3, height, width], packed questions, dense labels and the questions as text."""

    pixels: torch.Tensor
    packed: Packed
    dense: torch.Tensor
    questions: list[list[Question]]


class Batcher:
    """Draws batches; ``images`` and ``videos`` are the processors that the finished checkpoint is used with."""

    def __init__(self, packer: Packer, images: Any, videos: Any) -> None:
        self.packer, self.images, self.videos = packer, images, videos

    def scenes(
        self, rng: random.Random, count: int, grid: tuple[int, int], easy: float, weights: dict[str, float]
    ) -> Batch:
        """Draw ``count`` scenes of one grid of tiles."""
        drawn = [draw_scene(rng, grid, easy) for _ in range(count)]
        questions = [ask_scene(rng, scene) for scene in drawn]
        openings = [opening(image_prompt(grid), video=False)] * count
        pixels = self.images([[scene.image] for scene in drawn], return_tensors="pt")["pixel_values"]
        dense = np.stack([dense_labels(scene.shapes, scene.size, grid) for scene in drawn])
        return Batch(pixels, self.packer.pack(openings, questions, weights), torch.from_numpy(dense), questions)

    def clips(self, rng: random.Random, count: int, frames: int, weights: dict[str, float]) -> Batch:
        """Draw ``count`` clips of ``frames`` frames."""
        drawn = [draw_clip(rng, frames) for _ in range(count)]
        questions = [ask_clip(rng, clip) for clip in drawn]
        openings = [opening(video_prompt(clip.seconds, clip.duration), video=True) for clip in drawn]
        stacks = [np.stack([np.asarray(frame) for frame in clip.frames]) for clip in drawn]
        pixels = self.videos(stacks, return_tensors="pt")["pixel_values"]
        packed = self.packer.pack(openings, questions, weights, video=True)
        dense = [np.concatenate([dense_labels(s, clip.size, (0, 0)) for s in clip.shapes]) for clip in drawn]
        return Batch(pixels, packed, torch.from_numpy(np.stack(dense)), questions)


def load_processors() -> tuple[Any, Any]:
    """Return the image and the video processor that the checkpoint is trained for."""
    return SmolVLMImageProcessor(**PROCESSOR), SmolVLMVideoProcessor(**PROCESSOR)
