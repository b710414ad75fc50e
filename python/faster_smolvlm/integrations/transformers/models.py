"""The accelerated models: `generate` runs on our engines, over the model's own parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ...checkpoint.configuration_smolvlm import SmolVLMConfig
from ...families import FAMILIES, family_named
from ...generation import GenerationConfig
from ...generation.choice import ServedBy
from ...generation.config import ARGUMENTS
from ...generation.streamers import ended
from ...modeling import ops
from ...modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
from .notes import say_once
from .positions import same_positions
from .versions import version

if TYPE_CHECKING:
    from ...generation.loop import Decoding
    from ...modeling.generate import AnyEngine

    class _Base:
        """What the mixin uses of Transformers' models that it stands before."""

        device: torch.device
        dtype: torch.dtype
        generation_config: object

        def generate(self, inputs: object, generation_config: object, *args: object, **kwargs: object) -> object: ...
else:
    _Base = object

# Whose forward the engines know: the layers of these files of Transformers, and those of torch.
_SOURCES = (*(family.model_type for family in FAMILIES), "llama", "siglip")
_LAYERS = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.ModuleList, nn.Identity)
_ACTIVATIONS = ("transformers.activations", "torch.nn.modules.activation")
_ATTENTION = ("sdpa", "eager", "flash_attention_2")


class ModelMixin(_Base):
    """Comes before a model of Transformers with a language head.

    `generation_engine` says which engine served the last call of `generate`: "native", "graph", or "transformers" and
    why.
    """

    generation_engine: ServedBy | None = None
    _faster_smolvlm: SharedModel | None = None

    def generate(self, inputs: object = None, generation_config: object = None, *args: object, **kwargs: Any) -> object:
        """Generate; arguments and result are those of Transformers.

        The native engine serves a model on the CPU, captured steps with Triton kernels one on a GPU. What they do not
        serve (beam search on a CPU, adapters, hooks, `return_dict_in_generate`, …) Transformers does.
        """
        call = self._start(inputs, generation_config, args, kwargs)
        if isinstance(call, str):
            say_once(f"{type(self).__name__}.generate leaves calls to Transformers: {call}")
            self.generation_engine = ServedBy("transformers", call)
            return super().generate(inputs, generation_config, *args, **kwargs)
        streamer = kwargs.get("streamer")
        with ended(streamer):
            call.run(streamer)
        self.generation_engine = ServedBy(call.engine.name)
        return call.ids

    def _start(
        self, inputs: object, generation_config: object, args: tuple[object, ...], kwargs: dict[str, Any]
    ) -> Decoding[AnyEngine] | str:
        """Begin a call with our engines, or return why they do not serve it."""
        if args:
            return "arguments after generation_config were given by position"
        reason = _why_not_model(self)
        if reason:
            return reason
        device = self.device
        if device.type == "cuda":
            reason = ops.why_not_triton(device, self.dtype)
        elif device.type != "cpu":
            reason = f"the model is on {device}"
        if reason:
            return reason
        # A None that is written out turns a setting off; as an input of the model it is none.
        given = {n: value for n, value in kwargs.items() if (value is not None or n in ARGUMENTS) and n != "streamer"}
        config = self.generation_config if generation_config is None else generation_config
        if given.get("return_dict_in_generate", getattr(config, "return_dict_in_generate", None)):
            return "return_dict_in_generate asks for Transformers' own cache"
        try:
            ours = self._shared_model()
            engine = None if device.type == "cuda" else "native"
            return ours.start_generation(cast("torch.Tensor | None", inputs), generation_config, engine=engine, **given)
        except (ValueError, TypeError, NotImplementedError) as error:
            return str(error)  # an argument that is wrong is wrong to Transformers too, which says so in its words

    def _shared_model(self) -> SmolVLMForConditionalGeneration:
        if self._faster_smolvlm is None:
            self._faster_smolvlm = SharedModel()
        return self._faster_smolvlm.of(self)


class SharedModel:
    """Our model over the parameters of one of Transformers, made anew once those are others. Copies are empty."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._parameters: list[nn.Parameter] = []  # keeps the ids of the key from being given to others
        self._model: SmolVLMForConditionalGeneration | None = None

    def __reduce__(self) -> tuple[type[SharedModel], tuple[()]]:
        return SharedModel, ()

    def of(self, model: Any) -> SmolVLMForConditionalGeneration:
        """Return our model over the parameters of `model`.

        Raises ValueError if names or shapes do not fit, or config fields are odd.
        """
        config = model.config.to_dict()
        state = model.state_dict(keep_vars=True)
        key = (config, [(name, id(value)) for name, value in state.items()], model.device)
        if self._model is None or key != self._key:
            self._model = _share(family_named(model.config.model_type).config_class().from_dict(config), state)
            self._parameters = list(model.parameters())
            self._key = key
        self._model.generation_config = GenerationConfig.from_dict(_settings(model.generation_config))
        return self._model


def _settings(config: Any) -> dict[str, Any]:
    found = {name: value for name, value in config.to_dict().items() if value is not None}
    if getattr(config, "_from_model_config", False):
        found.pop("use_cache", None)  # that of a config.json is for training; it changes no token
    return found


def _share(config: SmolVLMConfig, state: dict[str, Any]) -> SmolVLMForConditionalGeneration:
    with torch.device("meta"):
        ours = SmolVLMForConditionalGeneration(config)
    expected = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        odd = sorted({*expected.items()} ^ {*found.items()})[0][0]
        raise ValueError(f"the tensor {odd!r} is {found.get(odd)} in the model, {expected.get(odd)} to the engines")
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_(state[name].requires_grad)  # assigning would set the model's own flags
    ours.load_state_dict(state, assign=True)
    return ours.eval()


def _why_not_model(model: Any) -> str:
    """Return why our engines cannot stand in for the modules of a model as they are now; "" if they can."""
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1:
        return f"the parameters are on several devices ({', '.join(sorted(map(str, devices)))})"
    for name, parameter in model.named_parameters():
        if type(parameter.data) is not torch.Tensor:
            return f"{name!r} is a {type(parameter.data).__name__}"
    implementation = getattr(model.config, "_attn_implementation", "sdpa")
    if implementation not in _ATTENTION:
        return f"attn_implementation is {implementation!r}"
    embeddings = model.model.vision_model.embeddings
    if not same_positions(embeddings.__class__, embeddings.num_patches_per_side):
        return f"Transformers {version()} gives the patches of pictures other positions than later versions"
    for name, module in model.named_modules():
        kind = type(module)
        which = f"module {name!r}" if name else "the model"
        if name and kind not in _LAYERS and not _is_known(kind):
            return f"{which} is a {kind.__module__}.{kind.__name__}"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{which} has forward hooks"
        if "forward" in vars(module):
            return f"{which} has a forward of its own"
        if module.training and (getattr(module, "attention_dropout", 0) or getattr(module, "dropout", 0)):
            return f"{which} is in training mode and drops values out"
    return ""


def _is_known(kind: type) -> bool:
    home = kind.__module__
    return home in _ACTIVATIONS or any(home.startswith(f"transformers.models.{source}.") for source in _SOURCES)
