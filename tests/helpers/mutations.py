"""Damaged copies of good files: bits flipped, parts cut out, lengths changed; the same for the same seed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import numpy as np
from faster_smolvlm.media import MediaError, MediaPolicy, load_image
from faster_smolvlm.media.video import VideoReader

# Formats keep lengths as numbers of these sizes and orders, more of them near the beginning.
_LENGTHS = ((2, "big"), (4, "big"), (2, "little"), (4, "little"))
_VALUES = (0, 1, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_UNFIT = re.compile(r"0x[0-9a-f]{6,}|libav|Errno|Traceback|object at")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return one damaged copy."""
    out = bytearray(data)

    def position() -> int:
        return int(len(out) * rng.random() ** rng.choice([1, 3, 8]))

    for _ in range(int(rng.choice([1, 2, 8]))):
        if len(out) < 16:
            break
        kind, at = rng.integers(6), min(position(), len(out) - 1)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            size, order = _LENGTHS[rng.integers(4)]
            value = int(rng.choice(_VALUES)) % (1 << 8 * size)
            out[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == 3:
            del out[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            out[at:at] = out[at : at + int(rng.integers(1, 64))]
        elif len(out) > 16:
            del out[max(16, at) :]
    return bytes(out)


def read_picture(data: bytes, policy: MediaPolicy) -> None:
    """Decode a picture."""
    load_image(data, policy)


def read_clip(data: bytes, policy: MediaPolicy) -> None:
    """Decode three frames of a clip."""
    reader = VideoReader(data, policy=policy, rotate=True)
    _ = reader.key_frames
    reader.frames(lambda metadata: np.unique(np.linspace(0, metadata.total_num_frames - 1, 3).astype(int)))


def complaint(read: Callable[[bytes, MediaPolicy], None], data: bytes, policy: MediaPolicy) -> str:
    """Read a damaged file; return what is wrong with how that ends, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(data, policy)
    except MediaError as error:
        text = str(error)
        if len(text) > 600 or _UNFIT.search(text) or "bytes" not in text:
            return f"unfit message: {text[:200]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""
