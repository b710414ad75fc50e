"""What a barrier across a whole grid costs: the price of each step of a kernel that would run a token in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def barrier_kernel(counter, rounds):
    """Meet `rounds` times: each program counts itself in, then waits until all of the round have."""
    programs = tl.num_programs(0)
    for i in range(rounds):
        arrived = tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu") + 1
        while arrived < (i + 1) * programs:
            arrived = tl.atomic_add(counter, 0, sem="acquire", scope="gpu")


def meet(counter: torch.Tensor, rounds: int, programs: int) -> None:
    """Launch `programs` programs, all resident at once, that meet `rounds` times; `counter` int32 (1,)."""
    counter.zero_()
    barrier_kernel[(programs,)](counter, rounds, num_warps=4, launch_cooperative_grid=True)
