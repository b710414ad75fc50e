"""The arithmetic that the works cannot do without."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, two to a multiply-add, of the matrix products and attention of a configuration."""

    image_size: int
    vision_config: dict[str, Any]
    text_config: dict[str, Any]
    scale_factor: int

    @classmethod
    def of(cls, checkpoint: Path) -> Cost:
        values = json.loads((checkpoint / "config.json").read_text())
        vision, text = values["vision_config"], values["text_config"]
        return cls(vision["image_size"], vision, text, values["scale_factor"])

    def vision(self) -> float:
        """One frame: patches, layers, connector."""
        config = self.vision_config
        width, patch = config["hidden_size"], config["patch_size"]
        tokens = (self.image_size // patch) ** 2
        layer = 4 * width**2 + 2 * width * config["intermediate_size"] + 2 * tokens * width
        connector = width * self.text_config["hidden_size"]
        return 2.0 * tokens * (3 * patch**2 * width + config["num_hidden_layers"] * layer + connector)

    def prefill(self, tokens: int) -> float:
        """A prompt: layers, causal attention, the head once."""
        config = self.text_config
        width, head = config["hidden_size"], config["head_dim"]
        queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
        layer = width * (2 * queries + 2 * keys + 3 * config["intermediate_size"])
        attention = tokens * queries
        layers = config["num_hidden_layers"] * tokens * (layer + attention)
        return 2.0 * (layers + width * config["vocab_size"])
