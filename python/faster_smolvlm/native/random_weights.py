"""Random weights for a configuration: what a machine makes of a model can be measured without its checkpoint."""

from __future__ import annotations

import numpy as np

from .._rust import checkpoint_tensors
from ..checkpoint.configuration_smolvlm import SmolVLMConfig
from .model import MemoryTensor, model_sizes

_BLOCK = 1 << 20


def random_tensors(config: SmolVLMConfig, *, seed: int = 0) -> list[MemoryTensor]:
    """Return bfloat16 tensors for all names of a checkpoint: weights normal, norms 1, biases 0.

    Matrices repeat one block of random numbers: drawing hundreds of millions would take longer than measuring.
    Raises ValueError for a configuration that the native engine does not have.
    """
    random = np.random.default_rng(seed).standard_normal(_BLOCK, dtype=np.float32) * 0.02
    block, one = _bfloat16(random), _bfloat16(np.ones(1, np.float32))
    tensors: list[MemoryTensor] = []
    for name, shape in checkpoint_tensors(model_sizes(config)):
        if len(shape) > 1:
            values = np.resize(block, shape)
        else:
            values = np.full(shape, one[0] if name.endswith("weight") else 0, np.uint16)
        tensors.append((name, "bfloat16", shape, values.reshape(-1).view(np.uint8)))
    return tensors


def _bfloat16(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return (values.view(np.uint32) >> 16).astype(np.uint16)
