"""The weights of the text stack for the decode kernels: views of the parameters, or int8 copies of the matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import ops
from .model import GenerativeModel

PROJECTIONS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


class UnsupportedModelError(ValueError):
    """A model, dtype or device that the decode kernels do not serve; the message says why."""


@dataclass(frozen=True)
class Matrix:
    """`weight` (N, K) in the activation dtype, or int8 with the float32 `scale` (N,) of its rows."""

    weight: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer."""

    input_norm: Tensor
    q: Matrix
    k: Matrix
    v: Matrix
    out: Matrix
    post_norm: Tensor
    gate: Matrix
    up: Matrix
    down: Matrix


@dataclass(frozen=True)
class DecodeWeights:
    """The text stack with its embedding and head."""

    layers: list[LayerWeights]
    embedding: Tensor
    norm: Tensor
    head: Matrix
    eps: float
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    vocabulary: int
    scale: float


def quantize(weight: Tensor) -> Matrix:
    """Round the rows of `weight` (N, K) to int8, symmetrically: the largest magnitude of a row becomes 127."""
    wide = weight.detach().float()
    scale = wide.abs().amax(1).clamp_min(1e-12) / 127.0
    return Matrix((wide / scale[:, None]).round_().to(torch.int8), scale)


def gather(model: GenerativeModel, *, int8: bool = False) -> DecodeWeights:
    """Collect the weights of a `SmolVLMForConditionalGeneration`.

    Raises:
        UnsupportedModelError: a projection that is more than a matrix (bias, adapter, hook), an activation other than
            SiLU, a head_dim that is no power of two, a dtype or a device without kernels.
    """
    text, config = model.model.text_model, model.config.text_config
    reason = ops.why_not_triton(model.device, model.dtype)
    if reason:
        raise UnsupportedModelError(reason)
    dim = config.head_dim or 0
    if dim & (dim - 1) or not 16 <= dim <= 128:
        raise UnsupportedModelError(f"head_dim {dim} is not a power of two from 16 to 128")
    if config.hidden_act != "silu":
        raise UnsupportedModelError(f"hidden_act {config.hidden_act!r} is not 'silu'")

    def matrix(module: nn.Module) -> Matrix:
        if not ops.is_plain_linear(module):
            raise UnsupportedModelError(f"a projection is not a plain matrix but {module}")
        weight = _weight(module, model)
        return quantize(weight) if int8 else Matrix(weight)

    layers = []
    for layer in text.layers:
        q, k, v, out, gate, up, down = (matrix(layer.get_submodule(name)) for name in PROJECTIONS)
        input_norm, post_norm = (
            _weight(layer.get_submodule(name), model) for name in ("input_layernorm", "post_attention_layernorm")
        )
        layers.append(LayerWeights(input_norm, q, k, v, out, post_norm, gate, up, down))
    embedding = _weight(text.embed_tokens, model)
    return DecodeWeights(
        layers=layers,
        embedding=embedding,
        norm=_weight(text.norm, model),
        head=matrix(model.lm_head),
        eps=float(config.rms_norm_eps),
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_dim=dim,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        vocabulary=embedding.shape[0],
        scale=float(dim**-0.5),
    )


def refresh(weights: DecodeWeights, model: GenerativeModel) -> None:
    """Round the matrices of `model` to int8 again, into the memory of `weights`, which captured steps read.

    No count of versions would do in its place: writes through `parameter.data` change none.
    """
    for copy, module in zip(_matrices(weights), _projections(model), strict=True):
        anew = quantize(_weight(module, model))
        copy.weight.copy_(anew.weight)
        if copy.scale is not None and anew.scale is not None:
            copy.scale.copy_(anew.scale)


def _matrices(weights: DecodeWeights) -> Iterator[Matrix]:
    for layer in weights.layers:
        yield from (layer.q, layer.k, layer.v, layer.out, layer.gate, layer.up, layer.down)
    yield weights.head


def _projections(model: GenerativeModel) -> Iterator[nn.Module]:
    for layer in model.model.text_model.layers:
        yield from (layer.get_submodule(name) for name in PROJECTIONS)
    yield model.lm_head


def fingerprint(model: GenerativeModel) -> tuple[int, ...]:
    """Return what changes when a parameter of the text stack is replaced."""
    parameters = (*model.model.text_model.parameters(), *model.lm_head.parameters())
    return tuple(parameter.data_ptr() for parameter in parameters)


def _weight(module: nn.Module, model: GenerativeModel) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    if weight.dtype != model.dtype or weight.device != model.device:
        raise UnsupportedModelError(
            f"the text stack mixes {model.dtype} on {model.device} with {weight.dtype} on {weight.device}"
        )
    if not weight.is_contiguous() or weight.data_ptr() % 16:
        raise UnsupportedModelError("a parameter is not contiguous, or not aligned to 16 bytes")
    return weight.detach()
