"""From the texts of a call, with pictures and clips for their placeholders, to token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .call_options import PaddingStrategy, TextOptions, TruncationStrategy
from .placeholders import (
    Clip,
    Grid,
    MediaTokens,
    Placeholder,
    find_placeholders,
    image_prompt,
    num_image_frames,
    replace_placeholders,
    video_prompt,
)
from .tokenization_smolvlm import SmolVLMTokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

Features = dict[str, Any]
"""What a tokenizer returns, by name: rows of ids and masks, as lists, arrays or tensors."""

_PADDING_OPTIONS = (
    "padding",
    "max_length",
    "pad_to_multiple_of",
    "padding_side",
    "return_attention_mask",
    "return_tensors",
)
_SPLICING_OPTIONS = frozenset({*_PADDING_OPTIONS, "add_special_tokens", "truncation", "verbose"})


class PromptPart(NamedTuple):
    """What one placeholder stands for: the grid of a picture, or a clip, whose frames have the grid (0, 0)."""

    placeholder: Placeholder
    grid: Grid
    clip: Clip | None

    @property
    def num_frames(self) -> int:
        """How many frames of pixels belong to it."""
        return num_image_frames(self.grid) if self.clip is None else len(self.clip.frames_indices or ())


def prompt_parts(
    texts: Sequence[str],
    tokens: MediaTokens,
    grids: Sequence[Grid],
    clips: Sequence[Clip],
    sanitize: bool = False,
) -> list[list[PromptPart]]:
    """Match the placeholders of each text with the pictures and clips of the call, in order.

    With `sanitize`, marked ones are text.
    """
    tokens_by_kind = {"image": tokens.image} if grids else {}
    if clips:
        tokens_by_kind["video"] = tokens.video
    next_grid, next_clip = iter(grids), iter(clips)
    return [
        [
            PromptPart(found, next(next_grid), None)
            if found.kind == "image"
            else PromptPart(found, (0, 0), next(next_clip))
            for found in find_placeholders(text, tokens_by_kind, sanitize)
        ]
        for text in texts
    ]


class PromptEncoder(NamedTuple):
    """Expands placeholders and encodes the texts."""

    tokenizer: SmolVLMTokenizer
    tokens: MediaTokens
    image_token_id: int
    image_seq_len: int

    def encode(
        self,
        texts: list[str],
        parts: list[list[PromptPart]],
        *,
        return_mm_token_type_ids: bool = False,
        return_text_replacement_offsets: bool = False,
        sanitize_control_tokens: bool = False,
        **options: Unpack[TextOptions],
    ) -> Features:
        """Return what the tokenizer returns for the expanded texts; `options` are the arguments of its call.

        `mm_token_type_ids` are 1 at image tokens and 0 elsewhere. Raises ValueError if truncation cuts image tokens.
        """
        if self._can_splice(options) and not return_text_replacement_offsets:
            features = self._splice(texts, parts, options, sanitize_control_tokens)
        elif sanitize_control_tokens:
            raise ValueError("sanitize_control_tokens cannot be combined with truncation or offsets")
        else:
            features = self._expand(texts, parts, options, return_text_replacement_offsets)
        if return_mm_token_type_ids:
            features["mm_token_type_ids"] = _equals(features["input_ids"], self.image_token_id)
        return features

    def _can_splice(self, options: TextOptions) -> bool:
        """Whether the short text can be encoded alone, and the ids of each picture be put into its ids.

        The ids are then the same, since the tokens around an expansion cut the text, and no long text is encoded.
        """
        padding = PaddingStrategy.of(options.get("padding"))
        truncation = TruncationStrategy.of(options.get("truncation"), options.get("max_length"), padding)
        return (
            truncation is TruncationStrategy.DO_NOT_TRUNCATE
            and not any(value and key not in _SPLICING_OPTIONS for key, value in options.items())
            and self.tokenizer.cuts_text_at(self.tokens.image)
            and self.tokenizer.cuts_text_at(self.tokens.fake_image)
        )

    def _splice(
        self, texts: list[str], parts: list[list[PromptPart]], options: TextOptions, sanitize: bool
    ) -> Features:
        short = [_with_clips(text, sample, self.tokens.image) for text, sample in zip(texts, parts, strict=True)]
        special = options.get("add_special_tokens") is not False
        rows = self.tokenizer.encode_rows(short, add_special_tokens=special, sanitize=sanitize)
        long = [
            _fill_in(row, self.image_token_id, self._fragments(sample)) for row, sample in zip(rows, parts, strict=True)
        ]
        if options.get("verbose") is not False:
            self.tokenizer.warn_if_too_long(long)
        padding: Features = {key: value for key, value in options.items() if key in _PADDING_OPTIONS}
        return self.tokenizer.pad({"input_ids": long}, **{"padding": False, **padding}).data

    def _fragments(self, sample: list[PromptPart]) -> Iterator[list[int]]:
        for part in sample:
            ids = self.tokenizer.encode_fragment(self._image_prompt(part.grid))
            for _ in range(1 if part.clip is None else part.num_frames):
                yield ids

    def _expand(
        self, texts: list[str], parts: list[list[PromptPart]], options: TextOptions, return_offsets: bool
    ) -> Features:
        frame = self._image_prompt((0, 0))
        expanded = [
            replace_placeholders(
                text,
                [part.placeholder for part in sample],
                [
                    self._image_prompt(part.grid) if part.clip is None else video_prompt(part.clip, frame)
                    for part in sample
                ],
            )
            for text, sample in zip(texts, parts, strict=True)
        ]
        features = self.tokenizer([text for text, _ in expanded], **options).data
        self._check_image_tokens([text for text, _ in expanded], features["input_ids"])
        if return_offsets:
            features["text_replacement_offsets"] = [offsets for _, offsets in expanded]
        return features

    def _check_image_tokens(self, texts: list[str], input_ids: Iterable[Iterable[int]]) -> None:
        in_ids = [sum(int(index) == self.image_token_id for index in row) for row in input_ids]
        in_text = [text.count(self.tokens.image) for text in texts]
        if in_ids != in_text:
            raise ValueError(
                f"Mismatch in `image` token count between text and `input_ids`. Got ids={in_ids} and text={in_text}. "
                "Likely due to `truncation='max_length'`. Please disable truncation or increase `max_length`."
            )

    def _image_prompt(self, grid: Grid) -> str:
        return image_prompt(grid, self.image_seq_len, self.tokens)


def _with_clips(text: str, sample: list[PromptPart], frame_prompt: str) -> str:
    """Expand the clips of a text, and leave one placeholder for each picture and each frame."""
    if all(part.clip is None for part in sample):
        return text
    replacements = [frame_prompt if part.clip is None else video_prompt(part.clip, frame_prompt) for part in sample]
    return replace_placeholders(text, [part.placeholder for part in sample], replacements)[0]


def _fill_in(ids: list[int], token_id: int, fragments: Iterator[list[int]]) -> list[int]:
    """Replace each `token_id` by a fragment."""
    filled: list[int] = []
    start = 0
    for fragment in fragments:
        found = ids.index(token_id, start)
        filled += ids[start:found]
        filled += fragment
        start = found + 1
    return filled + ids[start:] if start else ids


def _equals(input_ids: Any, token_id: int) -> Any:
    """Return 1 where an id is `token_id` and 0 elsewhere, in the form of `input_ids`."""
    if isinstance(input_ids, list):
        return [[int(index == token_id) for index in row] for row in input_ids]
    equal = input_ids == token_id
    return equal.astype(np.int64) if isinstance(equal, np.ndarray) else equal.long()
