"""Clips that the tests write themselves, so that a fresh clone shows what it can read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def pictures(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Frames, uint8 (frames, height, width, 3), in which a bright bar moves over noise and counts the frame."""
    rng = np.random.default_rng(seed)
    out = rng.integers(0, 60, (frames, height, width, 3), np.uint8)
    for index, frame in enumerate(out):
        left = index * 3 % width
        frame[:, left : left + max(2, width // 8)] = 200, 40 + index * 7 % 200, 90
        frame[: height // 8] = index % 256
    return out


def write_clip(
    path: Path,
    frames: int = 30,
    height: int = 48,
    width: int = 64,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 10,
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    audio: bool = False,
    sample_aspect_ratio: Fraction | None = None,
) -> Path:
    """Encode a clip; `times` are time stamps in milliseconds for a variable rate."""
    with av.open(str(path), "w", options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = options or {}
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound: Any = out.add_stream("aac", rate=16000) if audio else None
        for index, picture in enumerate(pictures(frames, height, width)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound is not None:
            for start in range(0, 16000, 1024):
                block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                block.sample_rate, block.pts = 16000, start
                out.mux(sound.encode(block))
            out.mux(sound.encode())
    return path


def every_frame(path: Path | str) -> list[np.ndarray]:
    """All frames by PyAV's plain loop over the best stream, as uint8 (height, width, 3): the definition."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        stream.thread_type = "AUTO"
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
