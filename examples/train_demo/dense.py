"""Dense labels: which shape and colour lies under each image token.

A throwaway linear layer learns them from the connector's output while the model learns to answer. Without this help the
vision tower takes several times longer to tell shapes apart. The layer is not part of the checkpoint.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

from .packing import IGNORED
from .scenes import COLOURS, SHAPES, TILE, Shape, draw_shape

TOKENS = 4  # tokens along an edge of a frame
WIDTH = 1 + len(SHAPES) + 1 + len(COLOURS) + 3
_NAMES, _COLOURS = list(SHAPES), list(COLOURS)


def _cells(coverage: np.ndarray, shapes: tuple[Shape, ...]) -> np.ndarray:
    """Return labels [tokens, 3] (shape, colour, size; 0 nothing) from the covered parts [tokens, shapes]."""
    kinds = np.array([(1 + _NAMES.index(s.name), 1 + _COLOURS.index(s.colour), 1 + s.big) for s in shapes])
    most, which = coverage.max(-1), coverage.argmax(-1)
    labels: np.ndarray = kinds[which]
    labels[most < 0.12] = IGNORED
    labels[most < 0.02] = 0
    return labels


def dense_labels(shapes: tuple[Shape, ...], size: tuple[float, float], grid: tuple[int, int]) -> np.ndarray:
    """Return labels [frames, tokens, 3] of the tiles in order and the global view; grid (0, 0) is one frame alone."""
    rows, columns = max(1, grid[0]), max(1, grid[1])
    field = Image.new("L", (columns * TILE, rows * TILE))
    canvas = ImageDraw.Draw(field)
    scale = (columns * TILE / size[0], rows * TILE / size[1])
    for i, shape in enumerate(shapes, 1):
        draw_shape(canvas, shape, scale, i)
    covered = (np.asarray(field)[..., None] == np.arange(1, len(shapes) + 1)).astype(np.float32)
    step = TILE // TOKENS
    fine = covered.reshape(rows * TOKENS, step, columns * TOKENS, step, -1).mean((1, 3))
    whole = fine.reshape(TOKENS, rows, TOKENS, columns, -1).mean((1, 3)).reshape(TOKENS**2, -1)
    frames = [_cells(whole, shapes)]
    if grid != (0, 0):
        tiles = fine.reshape(rows, TOKENS, columns, TOKENS, -1).swapaxes(1, 2).reshape(rows * columns, TOKENS**2, -1)
        frames = [*(_cells(tile, shapes) for tile in tiles), *frames]
    return np.stack(frames)


def dense_loss(head: nn.Linear, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross entropies of shape, colour and size; empty tokens, most of them, count a fifth."""
    parts = head(features.flatten(0, 1)).float().split([1 + len(SHAPES), 1 + len(COLOURS), 3], dim=-1)
    losses = []
    for part, target in zip(parts, labels.reshape(-1, 3).unbind(-1), strict=True):
        weight = torch.ones(part.shape[-1])
        weight[0] = 0.2
        losses.append(F.cross_entropy(part, target, weight=weight, ignore_index=IGNORED))
    return torch.stack(losses).sum()
