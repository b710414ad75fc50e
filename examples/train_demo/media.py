"""Draw the bundled example picture and clip: ``python -m examples.train_demo.media``."""

from __future__ import annotations

import random
from pathlib import Path

import av
from PIL import Image, ImageDraw

from .scenes import UNITS, Shape, background, draw_shape, paint

MEDIA = Path(__file__).resolve().parents[1] / "media"
RATE, SECONDS = 8, 4


def draw(back: Image.Image, shapes: list[Shape]) -> Image.Image:
    """Draw shapes on a copy of a background."""
    image = back.copy()
    scale = max(image.size) / UNITS
    canvas = ImageDraw.Draw(image)
    for shape in shapes:
        draw_shape(canvas, shape, (scale, scale), paint(shape))
    return image


def picture() -> Image.Image:
    """Return a picture of two shapes."""
    back = background(random.Random(3), 240, 180)
    return draw(back, [Shape("star", "red", 34, 54, 22), Shape("square", "blue", 96, 40, 12)])


def clip() -> list[Image.Image]:
    """Return the frames of a clip in which a circle moves to the right."""
    back = background(random.Random(5), 160, 160)
    count = RATE * SECONDS
    return [draw(back, [Shape("circle", "yellow", 26 + 76 * i / (count - 1), 60, 18)]) for i in range(count)]


def write_clip(frames: list[Image.Image], path: Path) -> None:
    """Write frames as H.264 in MP4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryslow"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))


def main() -> None:
    MEDIA.mkdir(exist_ok=True)
    picture().save(MEDIA / "scene.png", optimize=True)
    write_clip(clip(), MEDIA / "clip.mp4")


if __name__ == "__main__":
    main()
