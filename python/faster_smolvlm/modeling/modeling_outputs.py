"""What the models return: a dict whose entries are attributes and, by position, items of a tuple."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from .kv_cache import KVCache


class ModelOutput(dict[str, Any]):
    """The fields that are not None, in the order of declaration.

    `output.logits`, `output["logits"]` and `output[0]` are the same; a field that is None can be read as an attribute,
    but is neither a key nor counted by the index.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)

    def __init__(self, entries: Mapping[str, object] | Iterable[tuple[str, object]] = (), /, **values: object) -> None:
        super().__init__()
        values = {**dict(entries), **values}  # accelerate and DataParallel build outputs anew, as any dict
        unknown = values.keys() - set(self._fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        for name in self._fields:
            setattr(self, name, values.get(name))

    def __getattr__(self, name: str) -> Any:
        if name in self._fields:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self._fields:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if value is None:
            self.pop(name, None)
        else:
            self[name] = value

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in the order of declaration."""
        return tuple(dict.__getitem__(self, name) for name in self._fields if name in self)


class BaseModelOutputWithPast(ModelOutput):
    """Output of the text stack: hidden states of shape (batch_size, sequence_length, hidden_size)."""

    last_hidden_state: Tensor
    past_key_values: KVCache | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class BaseModelOutputWithPooling(ModelOutput):
    """Output of the vision tower: `last_hidden_state` (images, patches, hidden_size).

    `pooler_output`, filled by `get_image_features`, is a list with one tensor (image tokens, text hidden_size) for each
    row of the batch.
    """

    last_hidden_state: Tensor
    pooler_output: list[Tensor] | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class SmolVLMBaseModelOutputWithPast(ModelOutput):
    """Output of `SmolVLMModel`; `image_hidden_states` is the whole output of the vision tower."""

    last_hidden_state: Tensor
    past_key_values: KVCache | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    image_hidden_states: BaseModelOutputWithPooling | None


class SmolVLMCausalLMOutputWithPast(ModelOutput):
    """Output of `SmolVLMForConditionalGeneration`: logits (batch_size, kept positions, vocab_size), loss a scalar."""

    loss: Tensor | None
    logits: Tensor
    past_key_values: KVCache | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    image_hidden_states: BaseModelOutputWithPooling | None
