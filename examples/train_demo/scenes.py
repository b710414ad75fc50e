"""Scenes: pictures of one to three coloured shapes, of several sizes and aspect ratios.

A scene is laid out in units: its longer edge is 128 units long. The picture is drawn at any number of pixels, and what
the processor makes of it (rows and columns of tiles, stretched to fill them) is known from its width and height alone.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

UNITS = 128
TILE = 64
COLOURS = {
    "red": (215, 30, 35),
    "green": (30, 150, 50),
    "blue": (35, 70, 215),
    "yellow": (245, 215, 25),
    "purple": (140, 40, 170),
    "orange": (250, 130, 10),
    "white": (250, 250, 250),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
BACKGROUNDS = ((120, 125, 130), (150, 165, 175), (175, 160, 140), (110, 130, 120), (185, 190, 195))
# Units (width, height) of a picture, by the rows and columns of tiles that the processor cuts it into.
FORMATS = {
    (2, 2): ((128, 128), (128, 128), (128, 96), (96, 128), (128, 80), (80, 128)),
    (1, 2): ((128, 64), (128, 60)),
    (2, 1): ((64, 128), (60, 128)),
}
BIG, SMALL = (19, 24), (10, 13)  # radii in units


@dataclass(frozen=True)
class Shape:
    """A coloured shape; x, y (its middle) and radius are in units."""

    name: str
    colour: str
    x: float
    y: float
    radius: float
    tint: int = 0

    @property
    def big(self) -> bool:
        return self.radius >= BIG[0]

    def __str__(self) -> str:
        return f"{self.colour} {self.name}"

    def moved(self, x: float, y: float) -> Shape:
        return replace(self, x=x, y=y)

    def painted(self, colour: str) -> Shape:
        return replace(self, colour=colour)


@dataclass(frozen=True)
class Scene:
    """A picture, what is on it, its size in units and its grid of tiles (rows, columns)."""

    image: Image.Image
    shapes: tuple[Shape, ...]
    size: tuple[float, float]
    grid: tuple[int, int]


def draw_shape(
    canvas: ImageDraw.ImageDraw, shape: Shape, scale: tuple[float, float], fill: int | tuple[int, ...]
) -> None:
    """Draw one shape on a canvas whose pixels are ``scale`` (x, y) to the unit."""
    r, (sx, sy) = shape.radius, scale
    turns: list[tuple[float, float]]
    if shape.name == "circle":
        box = [(shape.x - r) * sx, (shape.y - r) * sy, (shape.x + r) * sx, (shape.y + r) * sy]
        canvas.ellipse(box, fill=fill)
        return
    if shape.name == "square":
        a = 0.88 * r
        turns = [(-a, -a), (a, -a), (a, a), (-a, a)]
    elif shape.name == "triangle":
        turns = [(1.1 * r * math.sin(t), 0.15 * r - 1.1 * r * math.cos(t)) for t in (0, math.tau / 3, 2 * math.tau / 3)]
    elif shape.name == "star":
        spokes = [(r * (1.15 if i % 2 == 0 else 0.5), i * math.pi / 5) for i in range(10)]
        turns = [(s * math.sin(t), -s * math.cos(t)) for s, t in spokes]
    else:
        w = 0.36 * r
        turns = [
            (-w, -r),
            (w, -r),
            (w, -w),
            (r, -w),
            (r, w),
            (w, w),
            (w, r),
            (-w, r),
            (-w, w),
            (-r, w),
            (-r, -w),
            (-w, -w),
        ]
    canvas.polygon([((shape.x + dx) * sx, (shape.y + dy) * sy) for dx, dy in turns], fill=fill)


def paint(shape: Shape) -> tuple[int, ...]:
    """Return the exact RGB of a shape: its colour, a little lighter or darker."""
    return tuple(max(0, min(255, v + shape.tint)) for v in COLOURS[shape.colour])


def background(rng: random.Random, width: int, height: int) -> Image.Image:
    """Return a muted background, plain, shaded or chequered, with some noise."""
    base = np.array(rng.choice(BACKGROUNDS), np.float32) + rng.uniform(-12, 12)
    field = np.broadcast_to(base, (height, width, 3)).copy()
    style = rng.random()
    if style < 0.35:
        field += np.linspace(-18, 18, height, dtype=np.float32)[:, None, None] * rng.choice((-1, 1))
    elif style < 0.6:
        step = max(1, max(width, height) // 16)
        field += ((np.arange(height)[:, None] // step + np.arange(width) // step) % 2 * 10 - 5)[..., None]
    noise = rng.choice((0, 3, 6))
    if noise:
        generator = np.random.default_rng(rng.getrandbits(32))
        field += noise * generator.standard_normal((height, width, 1), dtype=np.float32)
    return Image.fromarray(field.clip(0, 255).astype(np.uint8))


def relation(a: Shape, b: Shape) -> str:
    """Say where ``a`` is, seen from ``b``."""
    if abs(a.x - b.x) > abs(a.y - b.y):
        return "left of" if a.x < b.x else "right of"
    return "above" if a.y < b.y else "below"


def _ambiguous(shapes: tuple[Shape, ...], size: tuple[float, float], grid: tuple[int, int]) -> bool:
    """Tell whether a question about places would have no clear answer, in the picture or as the model sees it."""
    stretch = (grid[1] * size[1]) / (grid[0] * size[0])  # of y against x
    for i, a in enumerate(shapes):
        if abs(a.x - size[0] / 2) < 5 or abs(a.y - size[1] / 2) < 5:
            return True
        for b in shapes[:i]:
            dx, dy = abs(a.x - b.x), abs(a.y - b.y)
            if len(shapes) == 3 and (dy if grid[1] == 1 else dx) < 10:
                return True
            if len(shapes) == 2 and not (dx > 1.25 * dy * max(1, 1 / stretch) or dy > 1.25 * dx * max(1, stretch)):
                return True
    return False


def place(
    rng: random.Random, size: tuple[float, float], grid: tuple[int, int], count: int, big: float
) -> tuple[Shape, ...]:
    """Place ``count`` shapes of different names and colours so that none touch and every place is clear."""
    width, height = size
    while True:
        names, colours = rng.sample(SHAPES, count), rng.sample(list(COLOURS), count)
        shapes: list[Shape] = []
        for name, colour in zip(names, colours, strict=True):
            r = rng.randint(*(BIG if rng.random() < big else SMALL))
            for _ in range(20):
                x, y = rng.uniform(r + 3, width - r - 3), rng.uniform(r + 3, height - r - 3)
                if all(max(abs(x - o.x), abs(y - o.y)) > r + o.radius + 4 for o in shapes):
                    shapes.append(Shape(name, colour, x, y, r, rng.randint(-10, 10)))
                    break
        placed = tuple(shapes)
        if len(placed) == count and not _ambiguous(placed, size, grid):
            return placed


def picture_size(rng: random.Random, units: tuple[int, int]) -> tuple[int, int]:
    """Return a width and a height in pixels of the proportions of ``units``, small or large."""
    long = rng.randint(80, 260)
    width, height = units
    return (long, long * height // width) if width >= height else (long * width // height, long)


def draw_scene(rng: random.Random, grid: tuple[int, int], easy: float = 0.0) -> Scene:
    """Draw a scene that the processor will cut into ``grid``; with probability ``easy``, of one mostly big shape."""
    simple = rng.random() < easy
    pixels = picture_size(rng, rng.choice(FORMATS[grid]))
    scale = max(pixels) / UNITS
    size = (pixels[0] / scale, pixels[1] / scale)
    count = 1 if simple else rng.choice((1, 2, 2, 3, 3))
    shapes = place(rng, size, grid, count, 0.75 if simple else 0.5)
    image = background(rng, *pixels)
    canvas = ImageDraw.Draw(image)
    for shape in shapes:
        draw_shape(canvas, shape, (scale, scale), paint(shape))
    return Scene(image, shapes, size, grid)
