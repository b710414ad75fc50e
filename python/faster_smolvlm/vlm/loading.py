"""Loading a model with its processor on the engine of a device."""

from __future__ import annotations

import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..generation.choice import forced_engine

if TYPE_CHECKING:
    import torch

    from ..checkpoint.hub import HubOptions
    from ..modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
    from ..native import NativeSmolVLM
    from ..processor.processing_smolvlm import SmolVLMProcessor

# What the drivers of NVIDIA and AMD put up.
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True)
class Loading:
    """What is loaded, and how; see `SmolVLM.from_pretrained`."""

    name_or_dir: str | os.PathLike[str]
    hub: HubOptions
    device: str
    dtype: str | torch.dtype = "auto"
    quantization: str | None = None
    num_threads: int | None = None
    packed_cache_dir: str | os.PathLike[str] | None = None

    def run(self) -> tuple[SmolVLMForConditionalGeneration | NativeSmolVLM, SmolVLMProcessor]:
        """Return the model and its processor; see `SmolVLM.from_pretrained` for the errors."""
        device = device_named(self.device)
        if device == "cpu" and forced_engine() != "torch":
            return self._native()
        self._refuse_native_options()
        processor = self._processor()
        from ..modeling.modeling_smolvlm import SmolVLMForConditionalGeneration

        dtype = ("float32" if device == "cpu" else "bfloat16") if self.dtype == "auto" else self.dtype
        model = SmolVLMForConditionalGeneration.from_pretrained(
            self.name_or_dir, dtype=dtype, device=device, **self.hub
        )
        return model, processor

    def _native(self) -> tuple[NativeSmolVLM, SmolVLMProcessor]:
        from ..native import NativeSmolVLM

        # What the processor imports and its tokenizer take a sixth of a second, in which the weights can be packed.
        with ThreadPoolExecutor(1) as side:
            reading = side.submit(self._processor)
            model = NativeSmolVLM.from_pretrained(
                self.name_or_dir,
                dtype=str(self.dtype).removeprefix("torch."),
                quantization=self.quantization,
                num_threads=self.num_threads,
                packed_cache_dir=self.packed_cache_dir,
                **self.hub,
            )
            return model, reading.result()

    def _processor(self) -> SmolVLMProcessor:
        from ..processor.processing_smolvlm import SmolVLMProcessor

        return SmolVLMProcessor.from_pretrained(self.name_or_dir, **self.hub)

    def _refuse_native_options(self) -> None:
        if self.quantization is not None:
            raise ValueError(
                f"quantization={self.quantization!r} is not available with the torch engine; leave it None for the "
                "weights as stored."
            )
        options = {"num_threads": self.num_threads, "packed_cache_dir": self.packed_cache_dir}
        given = [f"{name}={value!r}" for name, value in options.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)}: for the native engine only, and torch serves here; leave it out.")


def device_named(device: str) -> str:
    """Return the device "auto" stands for; torch is only asked if the machine may have a GPU."""
    if device != "auto":
        return str(device)
    no_gpu = sys.platform == "linux" and not any(map(os.path.exists, _GPU_FILES))
    if no_gpu or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
