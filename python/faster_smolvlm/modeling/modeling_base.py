"""What the three model classes share: construction, loading, saving, and the methods that trainers call."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..checkpoint import weights
from ..checkpoint.config_base import PretrainedConfig
from ..checkpoint.devices import device_name
from ..checkpoint.hub import HUB_NAMES, Checkpoint, HubOptions, checkpoint
from ..integers import count_of
from ..quoting import quoted, shown
from ..unknown_names import check_names, parameters_of
from . import ops
from .modeling_outputs import ModelOutput
from .recomputing import LayerStack, Recomputing

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

logger = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT", bound=PretrainedConfig)
OutputT = TypeVar("OutputT", bound=ModelOutput)


class SmolVLMPreTrainedModel(nn.Module, Generic[ConfigT]):
    """Base of the models: `from_pretrained` and `save_pretrained` in the hub's layout, random initial weights."""

    config_class: ClassVar[type[PretrainedConfig]]
    checkpoint_prefix: ClassVar[str] = ""
    base_model_prefix: ClassVar[str] = "model"
    main_input_name: ClassVar[str] = "pixel_values"
    supports_gradient_checkpointing: ClassVar[bool] = True
    config: ConfigT

    def __init__(self, config: ConfigT) -> None:
        if not isinstance(config, self.config_class):
            raise TypeError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, got {type(config).__name__}. "
                f"To load a checkpoint use {type(self).__name__}.from_pretrained(…)."
            )
        super().__init__()
        self.config = config
        self.register_state_dict_post_hook(_drop_shared_head)  # type: ignore[no-untyped-call]

    def post_init(self) -> None:
        """Draw the initial weights, the last step of each constructor; on the meta device there are none."""
        if self.device.type != "meta":
            self.init_weights()
            self.tie_weights()

    @classmethod
    def _from_config(
        cls, config: ConfigT, *, dtype: torch.dtype | str | None = None, attn_implementation: str | None = None
    ) -> Self:
        """Build a model with random weights."""
        model = cls(config)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        return model if dtype is None else model.to(weights.torch_dtype(dtype))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: ConfigT | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: str | torch.device | int | dict[str, str | torch.device | int] | None = None,
        device: str | torch.device | int | None = None,
        attn_implementation: str | None = None,
        **hub_options: Unpack[HubOptions],
    ) -> Self:
        """Load a checkpoint from a directory, a hub repository or "demo"; the model is in evaluation mode.

        `dtype` ("auto", a torch.dtype or its name; `torch_dtype` is the same) is by default what the config says, else
        that of the file. `device` or `device_map` is one device, or "auto": the first GPU if there is one.
        `hub_options` are those of `HubOptions`.

        Raises OSError for missing or broken files, RuntimeError that names the tensors if the weights do not fit
        the config, ValueError for a checkpoint of another kind of model.
        """
        check_names(hub_options, HUB_NAMES, also_named=parameters_of(cls.from_pretrained))
        files = checkpoint(pretrained_model_name_or_path, **hub_options)
        target = _device(device if device is not None else device_map)
        config = cls._read_config(files) if config is None else copy.deepcopy(config)
        if dtype is None:
            dtype = torch_dtype
        stored = weights.WeightFiles(files)
        if dtype is None or dtype == "auto":
            dtype = config.dtype or stored.float_dtype()
        number_type = weights.torch_dtype(dtype)

        with torch.device("meta"):
            model = cls(config)
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        found = stored.match(expected, prefix=cls.checkpoint_prefix, tied=bool(model._tied()))
        state = stored.read(found, dtype=number_type, device=target)
        model._use_stored_head(state)
        model.load_state_dict(state, strict=False, assign=True)
        model.tie_weights()
        config.dtype = str(number_type)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        model._read_extras(files)
        return model.eval()

    @classmethod
    def _read_config(cls, files: Checkpoint) -> ConfigT:
        return cls.config_class.from_checkpoint(files)  # type: ignore[return-value]

    def _read_extras(self, files: Checkpoint) -> None:
        """Read what a checkpoint holds beside config and weights; nothing here."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        max_shard_size: int | str = "50GB",
        save_function: Callable[..., object] | None = None,
    ) -> None:
        """Write `config.json` and the safetensors file or shards, as Transformers lays them out.

        `state_dict` takes the place of the model's own, such as one that was gathered from several processes. With
        `is_main_process=False` nothing is written. `save_function` is there for scripts that are written for
        Transformers, and not called.
        """
        if not is_main_process:
            return
        directory = Path(save_directory)
        self.save_config_files(directory)
        state = dict(self.state_dict() if state_dict is None else state_dict)
        for name in self._shared_head():
            if self._tied():
                state.pop(name, None)
            elif name not in state and weights.EMBEDDING in state:  # who reads the config expects two tensors
                state[name] = state[weights.EMBEDDING].clone()
        weights.save(state, directory, max_shard_size=max_shard_size)

    def save_config_files(self, save_directory: str | os.PathLike[str]) -> None:
        """Write `config.json`, and `generation_config.json` of a model that generates, but no weights."""
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.config.architectures = [type(self).__name__]
        self.config.dtype = str(self.dtype)
        self.config.save_pretrained(directory)
        generation_config = getattr(self, "generation_config", None)
        if generation_config is not None:
            generation_config.save_pretrained(directory)

    def init_weights(self) -> None:
        """Draw weights as Transformers does: normal with the config's `initializer_range`, biases 0, norms 1.

        Models inside this one have drawn theirs.
        """
        config = getattr(self.config, "text_config", self.config)
        deviation = getattr(config, "initializer_range", None) or 0.02
        for module in _modules_outside_models(self):
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
                nn.init.normal_(module.weight, std=deviation)
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                with torch.no_grad():
                    module.weight[module.padding_idx].zero_()

    def tie_weights(self) -> None:
        """Let the language head share the token embeddings if the config says so."""
        for name in self._tied():
            head = self.get_submodule(name.removesuffix(".weight"))
            head.weight = self.get_input_embeddings().weight

    def _tied(self) -> frozenset[str]:
        """Return the names of the parameters that share the tensor of another parameter."""
        tied = getattr(self.config, "tie_word_embeddings", False) and self.get_output_embeddings() is not None
        return frozenset({"lm_head.weight"}) if tied else frozenset()

    def _shared_head(self) -> tuple[str, ...]:
        """Return the name of the head's weight if it is, now, that of the embeddings.

        What peft puts around either has weights of its own names, which peft asks `state_dict()` for.
        """
        head = self.get_output_embeddings()
        weight = None if head is None else dict(head.named_parameters(recurse=False)).get("weight")
        table = dict(self.get_input_embeddings().named_parameters(recurse=False)).get("weight")
        return (weights.HEAD,) if weight is not None and weight is table else ()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        """Take the shared head, which `state_dict()` leaves out, from the embeddings."""
        if prefix + weights.EMBEDDING in state_dict:
            for name in self._shared_head():
                state_dict.setdefault(prefix + name, state_dict[prefix + weights.EMBEDDING])
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _use_stored_head(self, state: dict[str, Tensor]) -> None:
        """Drop a copy of the embeddings from `state`; untie a head that differs from them, as Transformers does."""
        for name in self._tied() & state.keys():
            if torch.equal(state[name], state[weights.EMBEDDING]):
                del state[name]
            else:
                self.config.tie_word_embeddings = False

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that maps inputs to vectors."""
        raise NotImplementedError

    def get_output_embeddings(self) -> nn.Linear | None:
        """Return the language head; None for a model without one."""
        return None

    @property
    def device(self) -> torch.device:
        """The device of the first parameter."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first parameter."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of values in the parameters, with or without those of embeddings; tied ones count once."""
        left_out: set[int] = set()
        if exclude_embeddings:
            tables = (module for module in self.modules() if isinstance(module, nn.Embedding))
            left_out = {id(parameter) for table in tables for parameter in table.parameters()}
        counted = (p for p in self.parameters() if id(p) not in left_out)
        return sum(p.numel() for p in counted if p.requires_grad or not only_trainable)

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Choose one of `ops.ATTENTION`: "auto", "triton", "sdpa", "flash_attention_2", or "eager", which can return
        the attention weights. An unknown name is a ValueError, a package that is not installed an ImportError.
        """
        ops.check_attention(attn_implementation)
        for config in (self.config, *vars(self.config).values()):
            if isinstance(config, PretrainedConfig):
                config._attn_implementation = attn_implementation

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, object] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recompute the layers in the backward pass of training instead of keeping what they computed.

        `every_n_layers` recomputes only every n-th layer of each stack; `offload` keeps the inputs of those layers in
        the memory of the CPU. The gradients are the same. `activation_checkpointing_kwargs` may hold
        `use_reentrant=False`; True is a ValueError.
        """
        if (activation_checkpointing_kwargs or {}).get("use_reentrant", False):
            raise ValueError("gradient checkpointing runs with use_reentrant=False only.")
        self._set_recomputing(Recomputing(count_of("every_n_layers", every_n_layers, 1), bool(offload)))

    def activation_checkpointing_disable(self) -> None:
        """Keep what the layers computed, as by default."""
        self._set_recomputing(None)

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether layers are recomputed in the backward pass."""
        return any(stack.recomputing is not None for stack in self._stacks())

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, object] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """As `activation_checkpointing_enable`: the name that Transformers had before."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_disable(self) -> None:
        """As `activation_checkpointing_disable`."""
        self.activation_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """As `is_activation_checkpointing`."""
        return self.is_activation_checkpointing

    def _set_recomputing(self, value: Recomputing | None) -> None:
        for stack in self._stacks():
            stack.recomputing = value

    def _stacks(self) -> Iterator[LayerStack]:
        return (module for module in self.modules() if isinstance(module, LayerStack))

    def _flag(self, name: str, given: bool | None) -> bool:
        """Return a flag as given by the caller, or else as the config has it."""
        return bool(getattr(self.config, name)) if given is None else given

    def _as_requested(self, output: OutputT, return_dict: bool | None) -> OutputT:
        """Return the output, or its tuple if `return_dict` (or else the config) asks for one."""
        if self.config.return_dict if return_dict is None else return_dict:
            return output
        return output.to_tuple()  # type: ignore[return-value]


def _drop_shared_head(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, object]
) -> None:
    """Leave one of two names of a tensor out of `state_dict()`: safetensors refuses to write what shares memory."""
    assert isinstance(module, SmolVLMPreTrainedModel)
    for name in module._shared_head():
        state_dict.pop(prefix + name, None)


def _modules_outside_models(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if not isinstance(child, SmolVLMPreTrainedModel):
            yield child
            yield from _modules_outside_models(child)


def _device(device: str | torch.device | int | dict[str, str | torch.device | int] | None) -> torch.device:
    if isinstance(device, dict):
        if set(device) != {""}:
            raise ValueError(f"device_map must be one device, 'auto' or {{'': device}}; got {shown(device)}.")
        return _device(device[""])
    if device is None:
        return torch.device("cpu")
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = device_name(device)
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend has its own
        raise ValueError(f"device {shown(device)} is not available: {quoted(str(error))}") from error
    return torch.device(name)
