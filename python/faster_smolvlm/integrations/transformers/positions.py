"""Whether a version of Transformers gives the patches of a picture the positions that our engines give them."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

from ...modeling.modeling_vision import SmolVLMVisionEmbeddings


@cache
def same_positions(kind: Any, side: int) -> bool:
    """Compare an embeddings class of Transformers with ours on a full and on a padded grid of `side` × `side` patches.

    4.57 rounds the positions of the patches down to the ones before, so its answers are others.
    """
    full, padded = torch.ones(2, 1, side, side, dtype=torch.bool)
    padded[:, side // 2 + 1 :] = False
    masks = torch.cat([full, padded])
    theirs, ours = (_positions(each, side, masks) for each in (kind, SmolVLMVisionEmbeddings))
    return torch.equal(theirs[masks.flatten(1)], ours[masks.flatten(1)])


@torch.no_grad()
def _positions(kind: Any, side: int, masks: torch.Tensor) -> torch.Tensor:
    embeddings = kind(SimpleNamespace(hidden_size=1, image_size=side, patch_size=1, num_channels=3))
    for parameter in embeddings.patch_embedding.parameters():
        parameter.zero_()
    numbers = torch.arange(side * side, dtype=torch.float32)
    embeddings.position_embedding.weight.copy_(numbers[:, None])
    found: torch.Tensor = embeddings(torch.zeros(len(masks), 3, side, side), masks)
    return found[..., 0]
