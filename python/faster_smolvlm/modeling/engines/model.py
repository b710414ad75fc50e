"""What the engines need of a torch model, as protocols; the classes in `modeling_*` fulfil them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from ...checkpoint.configuration_smolvlm import SmolVLMConfig
from .known_modules import Modules
from .model_inputs import ImageFeatures


class CausalOutput(Protocol):
    """What a forward pass gives: `logits` [rows, positions kept, vocabulary]."""

    @property
    def logits(self) -> Tensor:
        """Scores, float."""


class TextStack(Protocol):
    """The decoder: embeddings of the tokens, layers, last norm, rotary angles."""

    @property
    def embed_tokens(self) -> nn.Embedding:
        """Token ids to vectors."""

    @property
    def layers(self) -> nn.ModuleList:
        """Layers of attention and MLP."""

    @property
    def norm(self) -> nn.Module:
        """The norm after the last layer."""

    @property
    def rotary_emb(self) -> nn.Module:
        """Positions to cosines and sines."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Go through the weights."""


class Backbone(Protocol):
    """Text stack and picture encoder without the language head."""

    @property
    def text_model(self) -> TextStack:
        """The decoder."""

    def merge_image_features(
        self, input_ids: Tensor | None, inputs_embeds: Tensor, features: Tensor | list[Tensor]
    ) -> Tensor:
        """Overwrite the embeddings at the image tokens by the features of the pictures."""


class GenerativeModel(Modules, Protocol):
    """A `SmolVLMForConditionalGeneration`, as far as the engines look at it."""

    @property
    def config(self) -> SmolVLMConfig:
        """The config of the model, vision and text."""

    @property
    def _decode_graph(self) -> object:
        """What keeps the decode graph of this model, a `decode_graph.GraphHolder`."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""

    @property
    def model(self) -> Backbone:
        """Everything but the language head."""

    @property
    def lm_head(self) -> nn.Linear:
        """The language head."""

    def __call__(self, **inputs: object) -> CausalOutput:
        """Run a forward pass; the arguments are those of the model's `forward`."""

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embeddings."""

    def get_image_features(
        self, pixel_values: Tensor, pixel_attention_mask: Tensor | None = None, *, return_dict: bool | None = None
    ) -> ImageFeatures:
        """Encode pictures."""
