"""`SmolVLMTokenizer`: the tokenizer of a checkpoint, over the `tokenizers` library."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tokenizers import Encoding, Tokenizer

from ..batch_feature import BatchFeature
from ..checkpoint.hub import Checkpoint, checkpoint, split_hub_options
from ..checkpoint.json_files import JsonObject
from .call_options import UNLIMITED, PaddingStrategy, TextOptions, TruncationStrategy, checked_length, truncation_limit
from .control_tokens import encode_marked
from .fragments import FragmentCache
from .padding import Columns, Padding, as_tensors, encoded_columns
from .special_tokens import SpecialTokens
from .token_ids import TokenIds, as_list, tensor_type_of
from .tokenizer_config import (
    chat_template_of,
    check_overrides,
    config_text,
    longest_input,
    missing_tokens,
    read_backend,
    read_config,
    side,
    special_tokens,
    take_backend_defaults,
)
from .well_formed import check_text

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LOG = logging.getLogger(__name__)

# Below it, waking the threads of the library costs more than they save.
_PARALLEL_CHARACTERS = 1 << 12


def _check_texts(texts: Sequence[str]) -> None:
    for number, text in enumerate(texts):
        check_text(text, "the text" if len(texts) == 1 else f"text {number}")


class SmolVLMTokenizer(SpecialTokens):
    """Text to token ids and back.

    `backend` is the `tokenizers.Tokenizer`, `config` what `tokenizer_config.json` holds; both are taken over, not
    copied. Special tokens are attributes by the names of the config (`pad_token`, `image_token`, …), with their ids
    under the same names with `_id`; `padding_side`, `truncation_side`, `model_max_length` and the special tokens can
    be changed at any time.
    """

    model_input_names = ("input_ids", "attention_mask")
    is_fast = True
    pad_token_type_id = 0

    def __init__(self, backend: Tokenizer, config: JsonObject | None = None, **overrides: Any) -> None:
        if not isinstance(backend, Tokenizer):
            raise TypeError(f"backend must be a tokenizers.Tokenizer, got {type(backend).__name__}")
        settings = {**take_backend_defaults(backend), **(config or {}), **overrides}
        self.init_kwargs: JsonObject = settings
        self.name_or_path: str = settings.get("name_or_path", "")
        self.padding_side = side(settings, "padding_side")
        self.truncation_side = side(settings, "truncation_side")
        self.model_max_length: int = longest_input(settings) or UNLIMITED
        self.clean_up_tokenization_spaces = bool(settings.get("clean_up_tokenization_spaces", False))
        self.chat_template = chat_template_of(settings)
        self._fragments = FragmentCache()
        self._warned_too_long = False
        named, unnamed = special_tokens(settings)
        super().__init__(backend, named, unnamed)
        missing = missing_tokens(backend, settings, [*named.values(), *unnamed])
        if missing:
            backend.add_tokens(missing)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | Checkpoint,
        **options: Any,
    ) -> SmolVLMTokenizer:
        """Read tokenizer.json and tokenizer_config.json of a directory or hub repository.

        `options` are those of `HubOptions`; the others replace entries of tokenizer_config.json
        (`padding_side="left"`), and other names are kept in `init_kwargs`. Raises OSError for a missing or broken
        file, TypeError for a name that looks like a misspelt one.
        """
        hub_options, overrides = split_hub_options(options)
        check_overrides(overrides)
        if isinstance(pretrained_model_name_or_path, Checkpoint):
            source = pretrained_model_name_or_path
        else:
            source = checkpoint(pretrained_model_name_or_path, **hub_options)
        backend = read_backend(source.require("tokenizer.json"))
        return cls(backend, read_config(source), **{"name_or_path": source.name, **overrides})

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write tokenizer.json, tokenizer_config.json and, if there is a template, chat_template.jinja.

        Returns the paths.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        changed = {
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "additional_special_tokens": list(self.extra_special_tokens),
        }
        files = [folder / "tokenizer_config.json", folder / "tokenizer.json"]
        files[0].write_text(config_text(self.init_kwargs, self._special_tokens, changed), encoding="utf-8")
        self.backend_tokenizer.save(str(files[1]))
        if isinstance(self.chat_template, str):
            files.append(folder / "chat_template.jinja")
            files[-1].write_text(self.chat_template, encoding="utf-8")
        return tuple(map(str, files))

    # Text to ids

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        padding: bool | str | PaddingStrategy = False,
        truncation: bool | str | TruncationStrategy | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        return_token_type_ids: bool | None = None,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
    ) -> BatchFeature:
        """Encode one text or a list of texts.

        Returns `input_ids` and `attention_mask` (and what other arguments add) as lists, or with `return_tensors`
        "np"/"pt" as int64 arrays of shape (batch, length). Raises ValueError for another input, an unknown strategy, or
        texts of different lengths for one tensor without padding.
        """
        batched = not isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        if not all(isinstance(item, str) for item in texts):
            raise ValueError("text input must be of type `str` (single example) or `list[str]` (batch).")
        _check_texts(texts)
        max_length = checked_length("max_length", max_length)
        pad_to_multiple_of = checked_length("pad_to_multiple_of", pad_to_multiple_of)
        strategy = PaddingStrategy.of(padding)
        limit = truncation_limit(
            truncation,
            strategy,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            model_max_length=self.model_max_length,
        )
        encodings = self._encode_batch(texts, add_special_tokens, limit, offsets=return_offsets_mapping)
        columns: Columns = {"input_ids": [encoding.ids for encoding in encodings]}
        if return_token_type_ids:
            columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        if return_attention_mask is not False:
            columns["attention_mask"] = [[1] * len(ids) for ids in columns["input_ids"]]
        if return_special_tokens_mask:
            columns["special_tokens_mask"] = [encoding.special_tokens_mask for encoding in encodings]
        if return_offsets_mapping:
            columns["offset_mapping"] = [encoding.offsets for encoding in encodings]
        if verbose and limit is None:
            self.warn_if_too_long(columns["input_ids"])
        self._pad_columns(columns, strategy, max_length, pad_to_multiple_of, padding_side)
        lengths = {"length": [len(ids) for ids in columns["input_ids"]]} if return_length else {}
        if return_tensors is not None:
            return BatchFeature(as_tensors({**columns, **lengths}, return_tensors))
        return BatchFeature({**(columns if batched else {key: rows[0] for key, rows in columns.items()}), **lengths})

    def encode(self, text: str, **options: Unpack[TextOptions]) -> Any:
        """Return the ids of one text: a list, or with `return_tensors` an int64 array of shape (1, length)."""
        return self(text, **options)["input_ids"]

    def tokenize(self, text: str, add_special_tokens: bool = False) -> list[str]:
        """Return the tokens of one text."""
        check_text(text, "the text")
        return list(self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).tokens)

    def encode_rows(self, texts: list[str], add_special_tokens: bool = True, sanitize: bool = False) -> list[list[int]]:
        """Return the ids of each text, without padding or truncation.

        With `sanitize`, tokens that `control_tokens.mark` marked are encoded as plain text.
        """
        backend = self.backend_tokenizer
        _check_texts(texts)
        if sanitize:
            if add_special_tokens and backend.num_special_tokens_to_add(False):
                raise NotImplementedError("`sanitize_control_tokens=True` needs a template that writes special tokens")
            return [encode_marked(backend, text) for text in texts]
        if sum(map(len, texts)) < _PARALLEL_CHARACTERS:
            return [backend.encode(text, add_special_tokens=add_special_tokens).ids for text in texts]
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]

    def encode_fragment(self, text: str) -> list[int]:
        """Return the ids of a piece of a prompt that begins and ends with special tokens.

        They are remembered: do not change the list.
        """
        return self._fragments.encode(self.backend_tokenizer, text)

    def cuts_text_at(self, token: str) -> bool:
        """Whether `token` is found in a text before anything else, and does not touch what stands around it.

        What is on one side of such a token does not change the ids of the other side.
        """
        return self._fragments.cuts_text_at(self.backend_tokenizer, token)

    def warn_if_too_long(self, rows: list[list[int]]) -> None:
        """Log, once, that a text has more tokens than the model was made for."""
        length = max(map(len, rows), default=0)
        if length > self.model_max_length and not self._warned_too_long:
            self._warned_too_long = True
            _LOG.warning(
                "Token indices sequence length is longer than the specified maximum sequence length for this model "
                "(%d > %d). Running this sequence through the model will result in indexing errors",
                length,
                self.model_max_length,
            )

    def _encode_batch(self, texts: list[str], special: bool, limit: int | None, offsets: bool) -> list[Encoding]:
        backend = self.backend_tokenizer
        if limit is None:
            encode = backend.encode_batch if offsets else backend.encode_batch_fast
            return list(encode(texts, add_special_tokens=special))
        kept = limit - (backend.num_special_tokens_to_add(False) if special else 0)
        if kept < 0:
            raise ValueError(f"max_length={limit} leaves no room for the special tokens that are added to each text")
        encodings = list(backend.encode_batch(texts, add_special_tokens=False))
        for encoding in encodings:
            encoding.truncate(kept, stride=0, direction=self.truncation_side)
        return [backend.post_process(encoding, None, special) for encoding in encodings]

    # Padding

    def pad(
        self,
        encoded_inputs: Mapping[str, object] | Sequence[Mapping[str, object]],
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Pad already encoded inputs: a mapping of lists, or a list of mappings, with at least `input_ids`.

        Arrays and tensors are taken too, and come back as they came if `return_tensors` is None.
        """
        if isinstance(encoded_inputs, Mapping):
            given = encoded_inputs
        else:
            given = {key: [item[key] for item in encoded_inputs] for key in encoded_inputs[0]}
        max_length = checked_length("max_length", max_length)
        pad_to_multiple_of = checked_length("pad_to_multiple_of", pad_to_multiple_of)
        columns, single = encoded_columns(given, return_attention_mask)
        self._pad_columns(columns, PaddingStrategy.of(padding), max_length, pad_to_multiple_of, padding_side)
        values = {key: rows[0] for key, rows in columns.items()} if single else columns
        if return_tensors is None:
            return_tensors = tensor_type_of(given["input_ids"])
        return BatchFeature(values if return_tensors is None else as_tensors(values, return_tensors))

    def _pad_columns(
        self,
        columns: Columns,
        strategy: PaddingStrategy,
        max_length: int | None,
        multiple_of: int | None,
        padding_side: str | None,
    ) -> None:
        """Pad every column in place by a strategy."""
        padding = Padding.of(
            strategy,
            max_length=max_length,
            multiple_of=multiple_of,
            side=self.padding_side if padding_side is None else padding_side,
            model_max_length=self.model_max_length,
        )
        if padding is not None:
            padding.apply(columns, self.pad_token_id)

    # Ids to text

    @overload
    def decode(
        self,
        token_ids: int | Sequence[int],
        skip_special_tokens: bool = ...,
        clean_up_tokenization_spaces: bool | None = ...,
    ) -> str: ...
    @overload
    def decode(
        self,
        token_ids: TokenIds | Sequence[TokenIds] | Mapping[str, TokenIds],
        skip_special_tokens: bool = ...,
        clean_up_tokenization_spaces: bool | None = ...,
    ) -> str | list[str]: ...
    def decode(
        self,
        token_ids: TokenIds | Sequence[TokenIds] | Mapping[str, TokenIds],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str | list[str]:
        """Return the text of an id, a sequence of ids, or, as a list, of each row of a batch.

        Ids may be ints, lists, arrays or tensors. `clean_up_tokenization_spaces` is accepted and has no effect: the
        tokenizers of this family are byte-level BPE, which keep every space.
        """
        ids = as_list(token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids)
        decode = self.backend_tokenizer.decode
        try:
            if isinstance(ids, int):
                return str(decode([ids], skip_special_tokens))
            if len(ids) > 0 and hasattr(ids[0], "__len__"):
                return [decode(as_list(row), skip_special_tokens) for row in ids]
            return str(decode(ids, skip_special_tokens))
        except OverflowError:
            raise OverflowError("token ids must be in 0…2³²−1; are there labels (-100) among them?") from None

    def batch_decode(
        self,
        sequences: TokenIds | Sequence[TokenIds] | Mapping[str, TokenIds],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """As `decode`, but always a list."""
        texts = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [texts] if isinstance(texts, str) else texts

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map})"
        )
