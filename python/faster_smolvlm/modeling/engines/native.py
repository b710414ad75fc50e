"""The engine "native": a `NativeEngine` under `generate` of the torch model, with tensors in and out.

It is used if it can serve the model and the call; the functions here say why it cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...checkpoint.configuration_smolvlm import SmolVLMConfig
from ...generation.cancelling import Cancellation, Turn
from ...generation.config import GenerationConfig
from ...native import NativeEngine
from .known_modules import why_not_as_built
from .model_inputs import ModelInputs, is_padded_on_the_left_only
from .native_twin import DTYPES, NativeTwin

ATTENTION = ("auto", "sdpa")
"""The attention implementations that leave open what computes."""
POSITION_LIMIT = 1 << 20
"""Tokens of all rows together that the cache is enlarged to hold; it takes memory as they come."""


class NativeTorchEngine:
    """A `NativeEngine` for a loop over tensors; see `faster_smolvlm.generation.loop.Engine`."""

    name = "native"
    past_key_values = None

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine

    @property
    def cancellation(self) -> Cancellation:
        """What ends the call in the middle of a step."""
        return self._engine.cancellation

    def reserve(self, turn: Turn, copies: int, max_new_tokens: int) -> None:
        """Wait until there is memory for the call."""
        self._engine.reserve(turn, copies, max_new_tokens)

    @property
    def has_greedy(self) -> bool:
        """Always true."""
        return self._engine.has_greedy

    @property
    def new_token_limits(self) -> list[int]:
        """How many tokens can follow each prompt before its sequence comes to the position limit."""
        return self._engine.new_token_limits

    @property
    def vision_seconds(self) -> float:
        """Seconds that encoding the pictures took."""
        return self._engine.vision_seconds

    def prefill(self) -> Tensor:
        """Encode the pictures and read the prompts."""
        return torch.from_numpy(self._engine.prefill())

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row."""
        return torch.from_numpy(self._engine.step(tokens.numpy()))

    def greedy(self, tokens: Tensor) -> Iterator[Tensor]:
        """Append `tokens` and yield the likeliest tokens that follow."""
        return map(torch.from_numpy, self._engine.greedy(tokens.numpy()))

    def select(self, rows: Sequence[int]) -> None:
        """Make the state that of these rows."""
        self._engine.select(rows)

    def free(self) -> None:
        """End the sequences."""
        self._engine.free()


def native_engine(
    model: nn.Module, twin: NativeTwin, inputs: ModelInputs, config: GenerationConfig, *, max_new_tokens: int, rows: int
) -> NativeTorchEngine | str:
    """Return the engine for a call of `model`, a `SmolVLMForConditionalGeneration`, or the reason why torch serves it.

    `twin` keeps its packed weights; `rows` counts copies. The arguments are those of the call after `generate` has
    checked them.
    """
    reason = why_not_model(model) or _why_not_call(inputs, config)
    prompt = inputs.input_ids
    if reason or prompt is None:
        return reason
    model_config = model.config
    assert isinstance(model_config, SmolVLMConfig)
    length = prompt.shape[1]
    limit = 2 * model_config.text_config.max_position_embeddings
    if length >= limit:
        return f"the prompt has {length} tokens, the native engine holds {limit}"
    drafted = config.prompt_lookup_num_tokens or 0
    positions = rows * min(length + max_new_tokens + 1 + drafted, limit)
    if positions > POSITION_LIMIT:
        return f"{rows} rows may take {positions} positions, the native engine holds {POSITION_LIMIT}"
    try:
        native = twin.of(model_config, model.state_dict(keep_vars=True), num_threads=torch.get_num_threads())
        page = native.rust.cache_pages()[2]  # each row may leave its last page almost empty
        native.grow_cache(positions + rows * page)
    except (ValueError, MemoryError) as error:  # it refuses what torch computes with: odd configs, NaN weights
        return str(error)
    engine = NativeEngine(
        native,
        prompt.numpy(),
        _numpy(inputs.attention_mask),
        _numpy(inputs.pixel_values),
        _numpy(inputs.pixel_attention_mask),
        lookup=config.prompt_lookup_num_tokens,
        reuse=False,
    )
    return NativeTorchEngine(engine)


def why_not_model(model: nn.Module) -> str:
    """Return why the native engine cannot stand in for the modules of a model as they are now; "" if it can."""
    reason = why_not_as_built(model, "cpu", ATTENTION)
    if reason:
        return reason
    parameters = list(model.parameters())
    for parameter in parameters:
        if parameter.dtype not in DTYPES or parameter.dtype != parameters[0].dtype:
            return f"a parameter is {parameter.dtype}: the native engine takes float32 or bfloat16 for all"
    return ""


def _why_not_call(inputs: ModelInputs, config: GenerationConfig) -> str:
    if inputs.input_ids is None:
        return "the prompt is inputs_embeds"
    if inputs.mm_encoder_outputs is not None:
        return "the pictures are mm_encoder_outputs"
    if (config.num_beams or 1) > 1:
        return f"num_beams is {config.num_beams}"
    if config.use_cache is False:
        return "use_cache is False"
    if config.return_dict_in_generate:
        return "return_dict_in_generate returns the cache of torch"
    if not is_padded_on_the_left_only(inputs.attention_mask):
        return "the attention mask has padding that is not on the left"
    return ""


def _numpy(tensor: Tensor | None) -> npt.NDArray[np.generic] | None:
    if tensor is None:
        return None
    array: npt.NDArray[np.generic] = (tensor.detach().float() if tensor.is_floating_point() else tensor).numpy()
    return array
