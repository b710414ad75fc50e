"""A stand-in for a CUDA graph, for CPUs."""

from __future__ import annotations

from faster_smolvlm.kernels import launch


class RecordedCapture:
    """What a CUDA graph does: repeats the launches of one run with the very arguments they had."""

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0
        self.fails_after = None

    def __call__(self, run):
        if self.captures == self.fails_after:
            raise RuntimeError("no memory for a graph")
        self.captures += 1
        run()
        with launch.record("interpreter") as recorded:
            run()

        def replay():
            self.replays += 1
            for one in recorded:
                launch.launch(one.kernel, one.grid, one.settings, *one.args, pdl=one.pdl, **one.constants)

        return replay
