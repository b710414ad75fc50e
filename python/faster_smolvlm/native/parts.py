"""Some rows of a processor's batch, with the frames that belong to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[np.generic]
_PIXELS, _MASK = "pixel_values", "pixel_attention_mask"


def in_parts(
    inputs: Mapping[str, AnyArray], parts: Sequence[slice], image_token_id: int
) -> Iterator[Mapping[str, AnyArray]]:
    """Cut the inputs of a `NativeEngine` into parts of consecutive rows.

    Frames belong to rows by their order alone: those of clips come in one row of `pixel_values` for all prompts.
    """
    if len(parts) == 1:
        yield inputs
        return
    texts = {name: value for name, value in inputs.items() if name not in (_PIXELS, _MASK)}
    frames = {name: value.reshape(-1, *value.shape[2:]) for name, value in inputs.items() if name in (_PIXELS, _MASK)}
    real = _real(frames)
    tokens = (np.asarray(inputs["input_ids"]) == image_token_id).sum(1)
    before = np.concatenate([[0], np.cumsum(tokens) * len(real) // max(int(tokens.sum()), 1)])
    for part in parts:
        found = {name: value[part] for name, value in texts.items()}
        own = real[before[part.start] : before[part.stop]]
        if own:  # those between the first and the last are padding
            found |= {name: value[None, own[0] : own[-1] + 1] for name, value in frames.items()}
        yield found


def _real(frames: Mapping[str, AnyArray]) -> list[int]:
    """Return which frames are no padding, see `FrameEncoder.frames`."""
    if _PIXELS not in frames:
        return []
    shown = frames[_PIXELS]
    if shown.dtype == np.uint8:
        shown = frames.get(_MASK, shown)
    return [index for index in range(len(shown)) if shown[index].any()] or [0]
