"""Gradient checkpointing: layers that are computed once more in the backward pass."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint


class Recomputing(NamedTuple):
    """Every which layer is computed anew, and whether its input waits in the memory of the CPU."""

    every_n_layers: int = 1
    offload: bool = False


class LayerStack(nn.Module):
    """A module with layers that run one after the other."""

    recomputing: Recomputing | None = None

    def run_layer(
        self, index: int, layer: nn.Module, hidden_states: Tensor, *others: object
    ) -> tuple[Tensor, Tensor | None]:
        """Return what a layer makes of (batch, S, hidden_size) and its other arguments; training may recompute it."""
        how = self.recomputing if self.training else None
        output: tuple[Tensor, Tensor | None]
        if how is None or index % how.every_n_layers:
            output = layer(hidden_states, *others)
            return output
        with save_on_cpu(pin_memory=hidden_states.is_cuda) if how.offload else nullcontext():
            output = checkpoint(layer, hidden_states, *others, use_reentrant=False)
        return output
