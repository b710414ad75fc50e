"""`SmolVLMTokenizer`: the tokenizer of a checkpoint, over the `tokenizers` library."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from ..batch_feature import BatchFeature
from ..checkpoint.hub import Checkpoint, checkpoint, split_hub_options
from ..checkpoint.json_files import read_optional_json
from .control_tokens import encode_marked
from .padding import PaddingStrategy, TruncationStrategy, as_tensors, pad_sequences
from .tokenizer_config import (
    NAMED_TOKENS,
    added_token,
    chat_template_of,
    read_backend,
    side,
    special_tokens,
    to_json,
)

_LOG = logging.getLogger(__name__)

UNLIMITED = int(1e30)
"""`model_max_length` of a tokenizer that states none."""

# Below it, waking the threads of the library costs more than they save.
_PARALLEL_CHARACTERS = 1 << 12

_PRIVATE_KEYS = frozenset({"name_or_path", "vocab_file", "tokenizer_file", "is_local", "local_files_only", "backend"})


class SmolVLMTokenizer:
    """Text to token ids and back.

    `backend` is the `tokenizers.Tokenizer`, `config` what `tokenizer_config.json` holds; both are taken over, not
    copied. Special tokens are attributes by the names of the config (`pad_token`, `image_token`, …), with their ids
    under the same names with `_id`; `padding_side`, `truncation_side`, `model_max_length` and the special tokens can
    be changed at any time.
    """

    model_input_names = ("input_ids", "attention_mask")
    is_fast = True
    pad_token_type_id = 0

    def __init__(self, backend: Tokenizer, config: dict[str, Any] | None = None, **overrides: Any) -> None:
        if not isinstance(backend, Tokenizer):
            raise TypeError(f"backend must be a tokenizers.Tokenizer, got {type(backend).__name__}")
        self._special_tokens: dict[str, str] = {}
        self.backend_tokenizer = backend
        self.init_kwargs: dict[str, Any] = {**(config or {}), **overrides}
        self._take_over_backend_settings()
        settings = self.init_kwargs
        self.name_or_path: str = settings.get("name_or_path", "")
        self.padding_side = side(settings, "padding_side")
        self.truncation_side = side(settings, "truncation_side")
        self.model_max_length: int = settings.get("model_max_length") or settings.get("max_len") or UNLIMITED
        self.clean_up_tokenization_spaces = bool(settings.get("clean_up_tokenization_spaces", False))
        self.chat_template = chat_template_of(settings.get("chat_template"))
        self._special_tokens, self.extra_special_tokens = special_tokens(settings)
        self._add_missing_tokens()
        self._fragments: dict[str, list[int]] = {}
        self._cuts: dict[str, bool] = {}
        self._cached_size = len(self)
        self._warned_too_long = False

    def _take_over_backend_settings(self) -> None:
        """Move padding and truncation that tokenizer.json asks for into the defaults, since calls choose them anew."""
        truncation, padding = self.backend_tokenizer.truncation, self.backend_tokenizer.padding
        if truncation is not None:
            self.backend_tokenizer.no_truncation()
            defaults = {"max_length": truncation["max_length"], "truncation_side": truncation["direction"]}
            self.init_kwargs = {**defaults, **self.init_kwargs}
        if padding is not None:
            self.backend_tokenizer.no_padding()
            defaults = {
                "pad_token": padding["pad_token"],
                "padding_side": padding["direction"],
                "pad_to_multiple_of": padding["pad_to_multiple_of"],
            }
            self.init_kwargs = {**defaults, **self.init_kwargs}

    def _add_missing_tokens(self) -> None:
        """Add to the vocabulary what only the config knows: its added tokens, then its special tokens."""
        known = self.backend_tokenizer.get_added_tokens_decoder()
        listed = self.init_kwargs.get("added_tokens_decoder") or {}
        special = {*self._special_tokens.values(), *self.extra_special_tokens}
        missing = []
        for index, token in sorted(((int(index), added_token(token)) for index, token in listed.items())):
            if index not in known:
                token.special = token.special or token.content in special
                missing.append(token)
        contents = {token.content for token in [*known.values(), *missing]}
        for content in [*self._special_tokens.values(), *self.extra_special_tokens]:
            if content not in contents:
                contents.add(content)
                missing.append(AddedToken(content, special=True, normalized=False))
        if missing:
            self.backend_tokenizer.add_tokens(missing)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | Checkpoint,
        **options: Any,
    ) -> SmolVLMTokenizer:
        """Read tokenizer.json and tokenizer_config.json of a directory or hub repository.

        `options` are those of `HubOptions`; the others replace entries of tokenizer_config.json
        (`padding_side="left"`). Raises OSError for a missing or broken file.
        """
        hub_options, overrides = split_hub_options(options)
        if isinstance(pretrained_model_name_or_path, Checkpoint):
            source = pretrained_model_name_or_path
        else:
            source = checkpoint(pretrained_model_name_or_path, **hub_options)
        backend = read_backend(source.require("tokenizer.json"))
        config = read_optional_json(source.find("tokenizer_config.json"))
        if "added_tokens_decoder" not in config:
            config.update(read_optional_json(source.find("special_tokens_map.json")))
        template = source.find("chat_template.jinja")
        if template is not None:
            config["chat_template"] = template.read_text(encoding="utf-8")
        return cls(backend, config, **{"name_or_path": source.name, **overrides})

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja where there is one; return the paths."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        config = {key: value for key, value in self.init_kwargs.items() if key not in _PRIVATE_KEYS}
        for key in ("added_tokens_decoder", "additional_special_tokens", "chat_template", *NAMED_TOKENS):
            config.pop(key, None)
        config.update(
            self._special_tokens,
            model_max_length=self.model_max_length,
            padding_side=self.padding_side,
            truncation_side=self.truncation_side,
            clean_up_tokenization_spaces=self.clean_up_tokenization_spaces,
            extra_special_tokens={
                name: token for name, token in self._special_tokens.items() if name not in NAMED_TOKENS
            },
            additional_special_tokens=list(self.extra_special_tokens),
        )
        config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        files = [folder / "tokenizer_config.json", folder / "tokenizer.json"]
        files[0].write_text(to_json(config), encoding="utf-8")
        self.backend_tokenizer.save(str(files[1]))
        if isinstance(self.chat_template, str):
            files.append(folder / "chat_template.jinja")
            files[-1].write_text(self.chat_template, encoding="utf-8")
        return tuple(map(str, files))

    # Special tokens

    def __getattr__(self, name: str) -> Any:
        tokens = self.__dict__.get("_special_tokens", {})
        if name in tokens:
            return tokens[name]
        bare = name.removesuffix("_id")
        if bare in tokens:
            return self.convert_tokens_to_ids(tokens[bare])
        if bare in NAMED_TOKENS:
            return None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        bare = name.removesuffix("_id")
        if bare not in NAMED_TOKENS and bare not in self.__dict__.get("_special_tokens", {}):
            object.__setattr__(self, name, value)
            return
        if value is not None and bare != name:
            value = self.convert_ids_to_tokens(value)
        if value is None:
            self._special_tokens.pop(bare, None)
        elif isinstance(value, (str, AddedToken)):
            self._special_tokens[bare] = str(value)
        else:
            raise ValueError(f"Cannot set a non-string value as the {bare}")

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens by name."""
        names = [*NAMED_TOKENS, *(name for name in self._special_tokens if name not in NAMED_TOKENS)]
        return {name: self._special_tokens[name] for name in names if name in self._special_tokens}

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once: those with a name, then the extra ones."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [self._id_of(token) for token in self.all_special_tokens]

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens to the end of the vocabulary; return how many were new."""
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens)
        add = self.backend_tokenizer.add_special_tokens if special_tokens else self.backend_tokenizer.add_tokens
        return int(add(tokens))

    def add_special_tokens(self, special_tokens_dict: dict[str, str | AddedToken | Sequence[str | AddedToken]]) -> int:
        """Name special tokens (`{"pad_token": "<pad>"}`), adding those that are new; return how many were."""
        added = []
        for name, value in special_tokens_dict.items():
            if name in ("additional_special_tokens", "extra_special_tokens"):
                extra = [value] if isinstance(value, (str, AddedToken)) else list(value)
                self.extra_special_tokens = [str(token) for token in extra]
                added.extend(extra)
            elif name in NAMED_TOKENS and isinstance(value, (str, AddedToken)):
                setattr(self, name, value)
                added.append(value)
            else:
                raise ValueError(f"{name!r} is not the name of a special token, or {value!r} is no token")
        return self.add_tokens(added, special_tokens=True)

    # Vocabulary

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=True))

    def __bool__(self) -> bool:
        return True

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary without added tokens."""
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=False))

    def get_vocab(self) -> dict[str, int]:
        """Return the vocabulary, added tokens included."""
        return dict(self.backend_tokenizer.get_vocab(with_added_tokens=True))

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The added tokens by id."""
        return dict(self.backend_tokenizer.get_added_tokens_decoder())

    def get_added_vocab(self) -> dict[str, int]:
        """Return the ids of the added tokens."""
        return {token.content: index for index, token in sorted(self.added_tokens_decoder.items())}

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """Return the id of a token, or the ids of several; an unknown token gets `unk_token_id`, which may be None."""
        return self._id_of(tokens) if isinstance(tokens, str) else [self._id_of(token) for token in tokens]

    def _id_of(self, token: str) -> Any:
        index = self.backend_tokenizer.token_to_id(token)
        if index is None and token != self._special_tokens.get("unk_token"):
            return self.unk_token_id
        return index

    def get_token_id(self, token: str) -> int:
        """Return the id of a token that must be there; ValueError where it is not."""
        index = self.backend_tokenizer.token_to_id(token)
        if index is None:
            raise ValueError(
                f"the tokenizer {self.name_or_path!r} has no token {token!r}: is it that of a SmolVLM checkpoint?"
            )
        return int(index)

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Return the token of an id, or the tokens of several; None stands for an id without one."""
        ids = _as_list(ids)
        if isinstance(ids, int):
            return self.backend_tokenizer.id_to_token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self.backend_tokenizer.id_to_token(int(index)) for index in ids if int(index) not in skipped]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens of the vocabulary to text."""
        return str(self.backend_tokenizer.decoder.decode(tokens))

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

        Returns `input_ids` and `attention_mask` (and what else was asked for) as lists, or with `return_tensors`
        "np"/"pt" as int64 arrays of shape (batch, length). Raises ValueError for another input, an unknown strategy, or
        texts of different lengths that shall become one tensor without padding.
        """
        batched = not isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        if not all(isinstance(item, str) for item in texts):
            raise ValueError("text input must be of type `str` (single example) or `list[str]` (batch).")
        _check_lengths(max_length, pad_to_multiple_of)
        pads = PaddingStrategy.of(padding)
        truncates = TruncationStrategy.of(truncation, max_length, pads)
        limit = max_length
        if truncates is not TruncationStrategy.DO_NOT_TRUNCATE and limit is None and self.model_max_length < UNLIMITED:
            limit = self.model_max_length
        if truncates is TruncationStrategy.DO_NOT_TRUNCATE:
            limit = None
        if limit is not None and pads is not PaddingStrategy.DO_NOT_PAD and limit % (pad_to_multiple_of or 1):
            raise ValueError(
                f"Truncation and padding are both activated but truncation length ({limit}) is not a multiple of "
                f"pad_to_multiple_of ({pad_to_multiple_of})."
            )
        encodings = self._encode_batch(texts, add_special_tokens, limit, offsets=return_offsets_mapping)
        columns: dict[str, list[Any]] = {"input_ids": [encoding.ids for encoding in encodings]}
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
        self._pad_columns(columns, pads, max_length, pad_to_multiple_of, padding_side)
        lengths = {"length": [len(ids) for ids in columns["input_ids"]]} if return_length else {}
        if return_tensors is not None:
            return BatchFeature(as_tensors({**columns, **lengths}, return_tensors))
        return BatchFeature({**(columns if batched else {key: rows[0] for key, rows in columns.items()}), **lengths})

    def encode(self, text: str, *, return_tensors: str | None = None, **kwargs: Any) -> Any:
        """Return the ids of one text: a list, or with `return_tensors` an int64 array of shape (1, length)."""
        return self(text, return_tensors=return_tensors, **kwargs)["input_ids"]

    def tokenize(self, text: str, add_special_tokens: bool = False) -> list[str]:
        """Return the tokens of one text."""
        return list(self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).tokens)

    def encode_rows(self, texts: list[str], add_special_tokens: bool = True, sanitize: bool = False) -> list[list[int]]:
        """Return the ids of each text, without padding or truncation.

        With `sanitize`, tokens that `control_tokens.mark` marked are encoded as plain text.
        """
        backend = self.backend_tokenizer
        if sanitize:
            if add_special_tokens and backend.num_special_tokens_to_add(False):
                raise NotImplementedError("`sanitize_control_tokens=True` needs a template that writes special tokens")
            return [encode_marked(backend, text) for text in texts]
        if sum(map(len, texts)) < _PARALLEL_CHARACTERS:
            return [backend.encode(text, add_special_tokens=add_special_tokens).ids for text in texts]
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]

    def control_tokens(self, chat_template: str) -> list[str]:
        """Return the tokens that a user must not write: special ones, and added ones that the template writes."""
        return [
            token.content
            for token in self.added_tokens_decoder.values()
            if token.special or (token.content in chat_template and not token.content.isspace())
        ]

    def encode_fragment(self, text: str) -> list[int]:
        """Return the ids of a piece of a prompt that begins and ends with special tokens.

        They are remembered: do not change the list.
        """
        self._forget_if_grown()
        ids = self._fragments.get(text)
        if ids is None:
            if len(self._fragments) >= 256:
                self._fragments.clear()
            ids = self._fragments[text] = self.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def cuts_text_at(self, token: str) -> bool:
        """Whether `token` is found in a text before anything else, and does not touch what stands around it.

        Text on one side of such a token is encoded without a look at the other side.
        """
        self._forget_if_grown()
        if token not in self._cuts:
            index = self.backend_tokenizer.token_to_id(token)
            found = None if index is None else self.backend_tokenizer.get_added_tokens_decoder().get(index)
            self._cuts[token] = found is not None and not (
                found.lstrip or found.rstrip or found.single_word or found.normalized
            )
        return self._cuts[token]

    def _forget_if_grown(self) -> None:
        """Drop what was remembered where tokens were added since."""
        size = len(self)
        if size != self._cached_size:
            self._cached_size = size
            self._fragments.clear()
            self._cuts.clear()

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
        encoded_inputs: Any,
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Pad already encoded inputs: a mapping of lists, or a list of mappings, with at least `input_ids`.

        Arrays and tensors are taken too, and come back as they came where `return_tensors` is None.
        """
        if isinstance(encoded_inputs, (list, tuple)):
            encoded_inputs = {key: [item[key] for item in encoded_inputs] for key in encoded_inputs[0]}
        _check_lengths(max_length, pad_to_multiple_of)
        if "input_ids" not in encoded_inputs:
            raise ValueError(
                "You should supply an encoding or a list of encodings to this method that includes input_ids, but you "
                f"provided {list(encoded_inputs)}"
            )
        if return_tensors is None:
            return_tensors = _tensor_type_of(encoded_inputs["input_ids"])
        columns = {key: [_as_list(row) for row in _as_list(value)] for key, value in encoded_inputs.items()}
        single = bool(columns["input_ids"]) and isinstance(columns["input_ids"][0], int)
        if single:
            columns = {key: [value] for key, value in columns.items()}
        if return_attention_mask is not False and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(ids) for ids in columns["input_ids"]]
        self._pad_columns(columns, PaddingStrategy.of(padding), max_length, pad_to_multiple_of, padding_side)
        if single:
            columns = {key: value[0] for key, value in columns.items()}
        return BatchFeature(columns if return_tensors is None else as_tensors(columns, return_tensors))

    def _pad_columns(
        self,
        columns: dict[str, list[Any]],
        strategy: PaddingStrategy,
        max_length: int | None,
        pad_to_multiple_of: int | None,
        padding_side: str | None,
    ) -> None:
        """Pad every column in place, as `strategy` asks for."""
        if strategy is PaddingStrategy.MAX_LENGTH and max_length is None:
            if self.model_max_length >= UNLIMITED:
                return
            max_length = self.model_max_length
        if strategy is PaddingStrategy.DO_NOT_PAD:
            return
        pad_id = self.pad_token_id
        if pad_id is None:
            raise ValueError(
                "Asking to pad but the tokenizer does not have a padding token. Please select a token to use as "
                "`pad_token` `(tokenizer.pad_token = tokenizer.eos_token e.g.)` or add a new pad token via "
                "`tokenizer.add_special_tokens({'pad_token': '[PAD]'})`."
            )
        pad_sequences(
            columns,
            length=max_length if strategy is PaddingStrategy.MAX_LENGTH else None,
            multiple_of=pad_to_multiple_of,
            side=self.padding_side if padding_side is None else padding_side,
            fill={"input_ids": pad_id, "special_tokens_mask": 1, "offset_mapping": (0, 0)},
        )

    # Ids to text

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """Return the text of an id, a sequence of ids, or, as a list, of each row of a batch.

        Ids may be ints, lists, arrays or tensors. `clean_up_tokenization_spaces` is accepted and has no effect: the
        tokenizers of this family are byte-level BPE, which keep every space.
        """
        ids = _as_list(token_ids["input_ids"] if hasattr(token_ids, "keys") else token_ids)
        try:
            if isinstance(ids, int):
                return self.backend_tokenizer.decode([ids], skip_special_tokens)
            if len(ids) > 0 and hasattr(ids[0], "__len__"):
                return [self.backend_tokenizer.decode(_as_list(row), skip_special_tokens) for row in ids]
            return self.backend_tokenizer.decode(ids, skip_special_tokens)
        except OverflowError:
            raise OverflowError("token ids must be in 0…2³²−1; are there labels (-100) among them?") from None

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """As `decode`, but always a list."""
        texts = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [texts] if isinstance(texts, str) else list(texts)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map})"
        )


def _check_lengths(max_length: Any, pad_to_multiple_of: Any) -> None:
    for name, value in (("max_length", max_length), ("pad_to_multiple_of", pad_to_multiple_of)):
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {type(value).__name__}: {value!r}")
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def _as_list(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _tensor_type_of(value: Any) -> str | None:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    if not hasattr(value, "tolist"):
        return None
    return "np" if type(value).__module__.split(".")[0] == "numpy" else "pt"
