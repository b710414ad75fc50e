"""The configs of SmolVLM: vision tower, text stack (Llama), and the model that joins them."""

from __future__ import annotations

from typing import ClassVar

from ..quoting import shown
from .config_base import PretrainedConfig, contradiction
from .json_files import JsonObject

MAX_LAYERS = 1024
"""More layers than any model of the family; a guard against files that would make us build modules for hours."""


class SmolVLMVisionConfig(PretrainedConfig):
    """The vision tower: a SigLIP encoder over square patches.

    `image_size` and `patch_size` are in pixels; the position table has `(image_size // patch_size) ** 2` rows.
    """

    model_type: ClassVar[str] = "smolvlm_vision"
    accepted_model_types: ClassVar[tuple[str, ...]] = ("idefics3", "idefics3_vision", "siglip_vision_model")

    hidden_size: int = 1152
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int | list[int] | tuple[int, int] = 32
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    initializer_range: float = 0.02

    def validate(self) -> None:
        """Check that the heads divide the width, and that an image holds at least one patch."""
        super().validate()
        _check_layers(self.num_hidden_layers)
        if self.hidden_size % self.num_attention_heads != 0:
            raise contradiction(
                f"The hidden size ({self.hidden_size}) is not a multiple of the number of attention heads "
                f"({self.num_attention_heads}): check hidden_size and num_attention_heads."
            )
        sizes = self.image_size, self.patch_size
        if isinstance(sizes[0], int) and isinstance(sizes[1], int) and not 1 <= sizes[1] <= sizes[0]:
            raise contradiction(
                f"The patch size (patch_size, {self.patch_size}) must lie in 1 … {self.image_size} (image_size)."
            )


class SmolVLMTextConfig(PretrainedConfig):
    """The text stack: the fields of Transformers' `LlamaConfig`.

    `rope_parameters` is `{"rope_theta": base, "rope_type": "default"}`; the legacy keys `rope_theta` and `rope_scaling`
    are folded into it.
    """

    model_type: ClassVar[str] = "llama"

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pretraining_tp: int | None = 1
    tie_word_embeddings: bool = False
    rope_parameters: JsonObject | None = None
    attention_bias: bool = False
    attention_dropout: int | float | None = 0.0
    mlp_bias: bool = False

    def _prepare(self, values: JsonObject) -> None:
        scaling = values.pop("rope_scaling", None)
        rope = scaling or values.get("rope_parameters") or {}
        if not isinstance(rope, dict):
            raise contradiction(
                f"{'rope_scaling' if scaling else 'rope_parameters'} must be a dict, got {shown(rope)}."
            )
        rope = dict(rope)
        rope.setdefault("rope_theta", values.pop("rope_theta", 10000.0))
        rope.setdefault("rope_type", rope.get("type", "default"))
        values["rope_parameters"] = rope
        values.pop("rope_theta", None)

    def validate(self) -> None:
        """Fill `head_dim` and `num_key_value_heads`, and check that heads, groups and positions fit together."""
        if self.head_dim is None:
            self.head_dim = self.hidden_size // max(self.num_attention_heads, 1)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().validate()
        _check_layers(self.num_hidden_layers)
        if self.hidden_size % self.num_attention_heads != 0:
            raise contradiction(
                f"The hidden size ({self.hidden_size}) is not a multiple of the number of attention heads "
                f"({self.num_attention_heads}): check hidden_size and num_attention_heads."
            )
        if self.num_attention_heads % self.num_key_value_heads != 0:
            raise contradiction(
                f"The number of attention heads ({self.num_attention_heads}) is not a multiple of the number of "
                f"key-value heads ({self.num_key_value_heads}): check num_attention_heads and num_key_value_heads."
            )
        if self.head_dim % 2 != 0:
            raise contradiction(
                f"Rotary positions turn pairs of values, but head_dim is {self.head_dim}: it must be even."
            )
        if not isinstance(self.rope_theta, (int, float)) or not self.rope_theta > 0:
            raise contradiction(f"rope_theta must be a positive number, got {shown(self.rope_theta)}.")
        if not 0.0 <= self.initializer_range <= 1.0:
            raise contradiction(f"initializer_range must lie in 0 … 1, got {self.initializer_range}.")

    @property
    def rope_theta(self) -> float:
        """The base of the rotary frequencies."""
        return self.rope_parameters["rope_theta"]  # type: ignore[index,no-any-return]


class SmolVLMConfig(PretrainedConfig):
    """The whole model: `text_config` and `vision_config` (configs, or dicts of their fields) and what joins them.

    `scale_factor` is the side of the pixel shuffle: `scale_factor ** 2` patches become one image token, and the ids
    hold `image_token_id` at each of its positions.
    """

    model_type: ClassVar[str] = "smolvlm"
    accepted_model_types: ClassVar[tuple[str, ...]] = ("idefics3",)
    vision_config_class: ClassVar[type[SmolVLMVisionConfig]] = SmolVLMVisionConfig

    use_cache: bool = True
    image_token_id: int = 128257
    tie_word_embeddings: bool = False
    vision_config: SmolVLMVisionConfig = None  # type: ignore[assignment]  # made in the constructor
    text_config: SmolVLMTextConfig = None  # type: ignore[assignment]
    scale_factor: int = 2

    def _prepare(self, values: JsonObject) -> None:
        # The model pads with the text config's id; the one that hub files carry here lies outside the vocabulary.
        values["_pad_token_id"] = values.pop("pad_token_id", values.get("_pad_token_id", 128002))
        if isinstance(values.get("vision_config"), dict):
            values["vision_config"] = self.vision_config_class(**values["vision_config"])
        elif values.get("vision_config") is None:
            values["vision_config"] = self.vision_config_class()
        if isinstance(values.get("text_config"), dict):
            values["text_config"] = SmolVLMTextConfig(**values["text_config"])
        elif values.get("text_config") is None:
            values["text_config"] = SmolVLMTextConfig(rms_norm_eps=1e-5)

    def get_text_config(self, decoder: bool = False, encoder: bool = False) -> SmolVLMTextConfig:
        """Return `text_config`; the arguments are those of Transformers and make no difference here."""
        return self.text_config


def _check_layers(count: int) -> None:
    if count > MAX_LAYERS:
        raise contradiction(f"num_hidden_layers is {count}; at most {MAX_LAYERS} are supported.")
