"""The keyword arguments of a tokenizer's call, and what `padding` and `truncation` may say."""

from __future__ import annotations

from enum import Enum
from typing import TypedDict, TypeVar

from ..integers import as_int
from ..quoting import shown

UNLIMITED = int(1e30)
"""`model_max_length` of a tokenizer that states none."""

StrategyT = TypeVar("StrategyT", bound=Enum)


class PaddingStrategy(str, Enum):
    """To which length a batch of sequences is padded."""

    LONGEST = "longest"
    MAX_LENGTH = "max_length"
    DO_NOT_PAD = "do_not_pad"

    @classmethod
    def of(cls, value: object) -> PaddingStrategy:
        """Read the argument `padding`: a bool, None, a name or a strategy (of Transformers too)."""
        if value is None or value is False:
            return cls.DO_NOT_PAD
        return cls.LONGEST if value is True else _member(cls, value)


class TruncationStrategy(str, Enum):
    """Whether a sequence is cut; the three ways to cut a pair are the same for a single text."""

    LONGEST_FIRST = "longest_first"
    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    DO_NOT_TRUNCATE = "do_not_truncate"

    @classmethod
    def of(cls, value: object, max_length: int | None, padding: PaddingStrategy) -> TruncationStrategy:
        """Read the argument `truncation`; a `max_length` alone, without padding, truncates."""
        if value is None and max_length is not None and padding is PaddingStrategy.DO_NOT_PAD:
            return cls.LONGEST_FIRST
        if value is None or value is False:
            return cls.DO_NOT_TRUNCATE
        return cls.LONGEST_FIRST if value is True else _member(cls, value)


class TextOptions(TypedDict, total=False):
    """The keyword arguments of `SmolVLMTokenizer.__call__`; see there."""

    add_special_tokens: bool
    padding: bool | str | PaddingStrategy
    truncation: bool | str | TruncationStrategy | None
    max_length: int | None
    pad_to_multiple_of: int | None
    padding_side: str | None
    return_tensors: str | None
    return_attention_mask: bool | None
    return_token_type_ids: bool | None
    return_special_tokens_mask: bool
    return_offsets_mapping: bool
    return_length: bool
    verbose: bool


def _member(kind: type[StrategyT], value: object) -> StrategyT:
    name = value.value if isinstance(value, Enum) else value
    try:
        return kind(name)
    except ValueError:
        names = [member.value for member in kind]
        raise ValueError(f"{shown(name)} is not a valid {kind.__name__}, please select one of {names}") from None


def checked_length(name: str, value: object) -> int | None:
    """Return a length as an int, None for none; TypeError for what is no integer, ValueError for a negative one."""
    if value is None:
        return None
    length = as_int(value)
    if length is None:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}: {shown(value)}")
    if length < 0:
        raise ValueError(f"{name} must not be negative, got {shown(length)}")
    return length


def truncation_limit(
    truncation: object,
    padding: PaddingStrategy,
    *,
    max_length: int | None,
    pad_to_multiple_of: int | None,
    model_max_length: int,
) -> int | None:
    """Return to how many tokens a text is cut, special tokens included; None if texts stay whole.

    Raises ValueError for an unknown strategy, or if padding could not give a multiple of `pad_to_multiple_of`.
    """
    if TruncationStrategy.of(truncation, max_length, padding) is TruncationStrategy.DO_NOT_TRUNCATE:
        return None
    limit = max_length
    if limit is None and model_max_length < UNLIMITED:
        limit = model_max_length
    if limit is not None and padding is not PaddingStrategy.DO_NOT_PAD and limit % (pad_to_multiple_of or 1):
        raise ValueError(
            f"Truncation and padding are both activated but truncation length ({limit}) is not a multiple of "
            f"pad_to_multiple_of ({pad_to_multiple_of})."
        )
    return limit
