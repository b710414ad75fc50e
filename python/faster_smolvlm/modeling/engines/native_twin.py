"""A packed copy of the weights of a torch model, loaded into the native engine and kept up to date."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from ..._rust import weights_fingerprint
from ...checkpoint.configuration_smolvlm import SmolVLMConfig
from ...checkpoint.weights import EMBEDDING, HEAD
from ...fork_lock import ForkLock
from ...native.model import MemoryTensor, NativeSmolVLM

DTYPES = (torch.float32, torch.bfloat16)


class NativeTwin:
    """Packs a torch model's tensors for the native engine, and packs them anew whenever they have changed.

    Every call hashes all weights: it reads them once, as making one token does, and notices what a tensor's version
    does not tell (`parameter.data`, NumPy views). Copies and pickles of a twin are empty.
    """

    def __init__(self) -> None:
        self._lock = ForkLock(0)
        self._key: tuple[object, ...] = ()
        self._model: NativeSmolVLM | None = None

    def __reduce__(self) -> tuple[type[NativeTwin], tuple[()]]:
        return NativeTwin, ()

    def of(self, config: SmolVLMConfig, state: Mapping[str, Tensor], *, num_threads: int) -> NativeSmolVLM:
        """Return the native model of `state`: all tensors of a model by their names in a checkpoint, on the CPU.

        A head that is not there is that of the embeddings. Positions go to twice the limit of the config, which torch
        does not enforce. Raises ValueError if the engine does not have what config and tensors ask for, MemoryError if
        there is no memory for the packed weights.
        """
        tied = HEAD not in state or state[HEAD].data_ptr() == state[EMBEDDING].data_ptr()
        if tied != bool(config.tie_word_embeddings):
            config = copy.copy(config)  # the weights decide: Transformers unties a stored head that differs
            config.tie_word_embeddings = tied
        tensors = [_in_memory(name, tensor) for name, tensor in state.items() if not (tied and name == HEAD)]
        arrays = [array for *_, array in tensors]
        with self._lock:
            key = (
                weights_fingerprint(arrays, num_threads),
                [(name, dtype, shape) for name, dtype, shape, _ in tensors],
                state[EMBEDDING].data_ptr(),
                config.to_dict(),
                num_threads,
            )
            if self._model is None or key != self._key:
                self._model = None  # its memory goes before the new one's is taken
                dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
                limit = 2 * config.text_config.max_position_embeddings
                self._model = NativeSmolVLM(
                    tensors, config, dtype=dtype, num_threads=num_threads, position_limit=limit, feature_cache_bytes=0
                )
                self._key = key
            return self._model


def _in_memory(name: str, tensor: Tensor) -> MemoryTensor:
    values = tensor.detach().contiguous()
    dtype = str(values.dtype).removeprefix("torch.")
    return name, dtype, list(values.shape), values.view(torch.uint8).flatten().numpy()
