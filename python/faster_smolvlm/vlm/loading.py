"""Loading a model with its processor on the engine of a device."""

from __future__ import annotations

import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..auto import family_of
from ..checkpoint.devices import device_name
from ..checkpoint.hub import HubOptions, checkpoint, split_hub_options
from ..families import FAMILIES, Family
from ..generation.choice import forced_engine
from ..native.cache_limits import CacheLimits
from ..quoting import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ..checkpoint.hub import Checkpoint
    from ..modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
    from ..native import NativeSmolVLM
    from ..processor.processing_smolvlm import SmolVLMProcessor

# What the drivers of NVIDIA and AMD put up.
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class LoadOptions(HubOptions, CacheLimits, total=False):
    """Further keyword arguments of `SmolVLM.from_pretrained`: those of the hub, and of the native engine.

    The native engine computes on `num_threads` threads (default: the cores of this process, or its CPU quota if that is
    less). `packed_cache_dir` keeps the weights there as the engine packs them, so that later loads are quicker, see
    `NativeSmolVLM`. `cache_positions`, `feature_cache_bytes` and `prefix_cache_bytes` bound its memory, see
    `CacheLimits`.
    """

    num_threads: int | None
    packed_cache_dir: str | os.PathLike[str] | None


LOAD_NAMES = tuple(LoadOptions.__annotations__)


@dataclass(frozen=True)
class Loading:
    """What is loaded, and how; see `SmolVLM.from_pretrained`."""

    name_or_dir: str | os.PathLike[str]
    options: LoadOptions
    device: str | int | torch.device
    dtype: str | torch.dtype = "auto"
    quantization: str | None = None

    def run(self) -> tuple[SmolVLMForConditionalGeneration | NativeSmolVLM, SmolVLMProcessor]:
        """Return the model and its processor; see `SmolVLM.from_pretrained` for the errors."""
        device = device_named(self.device)
        native = device == "cpu" and forced_engine() != "torch"
        hub, native_options = split_hub_options(self.options)
        if not native:
            self._refuse_native_options(native_options)
        files = checkpoint(self.name_or_dir, **hub)
        family = family_of(files)
        if native:
            return self._native(files, family)
        processor = self._processor(family, hub)
        dtype = ("float32" if device == "cpu" else "bfloat16") if self.dtype == "auto" else self.dtype
        model = family.model_class().from_pretrained(self.name_or_dir, dtype=dtype, device=device, **hub)
        return model, processor

    def _native(self, files: Checkpoint, family: Family) -> tuple[NativeSmolVLM, SmolVLMProcessor]:
        from ..native import NativeSmolVLM

        hub, options = split_hub_options(self.options)
        # What the processor imports and its tokenizer take a sixth of a second, in which the weights can be packed.
        with ThreadPoolExecutor(1) as side:
            reading = side.submit(self._processor, family, hub)
            model = NativeSmolVLM.from_checkpoint(
                files,
                config=family.config_class().from_checkpoint(files),
                dtype=dtype_name(self.dtype),
                quantization=self.quantization,
                **options,
            )
            return model, reading.result()

    def _processor(self, family: Family, hub: HubOptions) -> SmolVLMProcessor:
        """Return the family's processor; if that takes no clips, the one that does."""
        kind = (family if family.has_video else FAMILIES[0]).processor_class()
        return kind.from_pretrained(self.name_or_dir, **hub)

    def _refuse_native_options(self, options: Mapping[str, object]) -> None:
        if self.quantization is not None:
            raise ValueError(
                f"quantization={shown(self.quantization)} is not available with the torch engine; leave it None for "
                "the weights as stored."
            )
        given = [f"{name}={shown(value)}" for name, value in options.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)}: for the native engine only, and torch serves here; leave it out.")


def dtype_name(dtype: object) -> str:
    """Return the name of a dtype that is given as a text or as torch's; ValueError for anything else."""
    if not isinstance(dtype, str) and type(dtype).__name__ != "dtype":
        raise ValueError(f"dtype has to be a name such as 'float32' or one of torch's, got {shown(dtype)}")
    return str(dtype).removeprefix("torch.")


def device_named(device: object) -> str:
    """Return the device "auto" stands for; torch is only asked if the machine may have a GPU."""
    name = device_name(device)
    if name != "auto":
        return name
    no_gpu = sys.platform == "linux" and not any(map(os.path.exists, _GPU_FILES))
    if no_gpu or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
