"""Clips: short videos in which one shape moves, appears or changes its colour."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .scenes import COLOURS, SHAPES, UNITS, Shape, background, draw_shape, paint

DIRECTIONS = {"To the right.": (1, 0), "To the left.": (-1, 0), "Up.": (0, -1), "Down.": (0, 1)}
SIZES = ((96, 96), (128, 128), (128, 96), (160, 120), (160, 160))


@dataclass(frozen=True)
class Clip:
    """Frames with their times in seconds, the shapes on each, and what happens (move, appear, change)."""

    frames: list[Image.Image]
    seconds: list[int]
    duration: int
    shapes: list[tuple[Shape, ...]]
    size: tuple[float, float]
    event: str
    direction: str = ""


def _span(rng: random.Random, step: int, travel: float, room: float, radius: float) -> tuple[float, float]:
    """Return start and end of one coordinate, moving by ``step`` times ``travel`` inside ``room``."""
    low = rng.uniform(radius + 2, room - radius - 2 - (travel if step else 0))
    return (low, low + travel) if step > 0 else (low + travel, low) if step < 0 else (low, low)


def _times(rng: random.Random, frames: int) -> tuple[list[int], int]:
    """Return what the prompt will say: a frame a second mostly, sometimes sparser, or nothing known of the time."""
    style = rng.random()
    if style < 0.7:
        return list(range(frames)), frames
    if style < 0.85:
        return [0] * frames, 0
    step = rng.randint(2, 4)
    return [step * i for i in range(frames)], step * frames


def draw_clip(rng: random.Random, frames: int) -> Clip:
    """Draw a clip of ``frames`` frames."""
    pixels = rng.choice(SIZES)
    scale = max(pixels) / UNITS
    width, height = size = (pixels[0] / scale, pixels[1] / scale)
    names, colours = rng.sample(SHAPES, 2), rng.sample(list(COLOURS), 2)
    event = rng.choices(("move", "appear", "change"), (0.7, 0.15, 0.15))[0]
    direction, (dx, dy) = rng.choice(list(DIRECTIONS.items())) if event == "move" else ("", (0, 0))
    radius = rng.randint(14, 21)
    travel = rng.uniform(0.55, 1.0) * ((width if dx else height) - 2 * radius - 4)
    (x0, x1), (y0, y1) = _span(rng, dx, travel, width, radius), _span(rng, dy, travel, height, radius)
    actor = Shape(names[0], colours[0], x0, y0, radius, rng.randint(-10, 10))
    turn = rng.randint(1, frames - 1)
    each: list[tuple[Shape, ...]]
    if event == "move":
        steps = [i / (frames - 1) for i in range(frames)]
        each = [(actor.moved(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t),) for t in steps]
    elif event == "change":
        each = [(actor if i < turn else actor.painted(colours[1]),) for i in range(frames)]
    else:
        actor = actor.moved(rng.uniform(radius + 2, width - 3 * radius - 6), y0)
        x, y = rng.uniform(actor.x + 2 * radius + 4, width - radius - 2), rng.uniform(radius + 2, height - radius - 2)
        other = Shape(names[1], colours[1], x, y, radius, rng.randint(-10, 10))
        if rng.random() < 0.5:
            actor, other = actor.moved(width - actor.x, actor.y), other.moved(width - other.x, other.y)
        each = [(actor,) if i < turn else (actor, other) for i in range(frames)]
    back = background(rng, *pixels)
    images = []
    for shapes in each:
        image = back.copy()
        canvas = ImageDraw.Draw(image)
        for shape in shapes:
            draw_shape(canvas, shape, (scale, scale), paint(shape))
        images.append(image)
    seconds, duration = _times(rng, frames)
    return Clip(images, seconds, duration, each, size, event, direction)
