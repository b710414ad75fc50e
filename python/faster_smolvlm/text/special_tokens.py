"""The vocabulary of a tokenizer and its special tokens, which are attributes by their names in the config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, overload

from tokenizers import AddedToken, Tokenizer

from ..quoting import shown
from .token_ids import TokenIds, as_list

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The names that every tokenizer has; a token that a config does not set is None. Configs may add names."""

Token = str | AddedToken

_TILE = re.compile(r"<row_\d+_col_\d+>")


class SpecialTokens:
    """Tokens and their ids, in both directions, and the special tokens, with a name and without.

    `named` maps names to tokens. A named token is an attribute (`pad_token`), its id is another (`pad_token_id`); both
    can be set. `unnamed` tokens are special without a name.
    """

    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None
    pad_token_id: int | None

    def __init__(self, backend: Tokenizer, named: Mapping[str, str], unnamed: Sequence[str]) -> None:
        self.backend_tokenizer = backend
        self.extra_special_tokens = list(unnamed)
        self._special_tokens = dict(named)

    def __getattr__(self, name: str) -> Any:
        tokens = self.__dict__.get("_special_tokens", {})  # not there yet while unpickling
        if name in tokens:
            return tokens[name]
        bare = name.removesuffix("_id")
        if bare in tokens:
            return self._id_of(tokens[bare])
        if bare in NAMED_TOKENS:
            return None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {shown(name)}")

    def __setattr__(self, name: str, value: object) -> None:
        bare = name.removesuffix("_id")
        if bare not in NAMED_TOKENS and bare not in self.__dict__.get("_special_tokens", {}):
            object.__setattr__(self, name, value)
            return
        if value is not None and bare != name:
            value = self.convert_ids_to_tokens(as_list(value))
        if value is None:
            self._special_tokens.pop(bare, None)
        elif isinstance(value, (str, AddedToken)):
            self._special_tokens[bare] = str(value)
        else:
            raise ValueError(f"Cannot set a non-string value as the {bare}")

    # Special tokens

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
    def all_special_ids(self) -> list[int | None]:
        """The ids of `all_special_tokens`."""
        return [self._id_of(token) for token in self.all_special_tokens]

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Token | Sequence[Token]]) -> int:
        """Name special tokens (`{"pad_token": "<pad>"}`), and add the new ones; return how many were new.

        Raises ValueError for a name that is none of `NAMED_TOKENS`, or a value that is no token.
        """
        added: list[Token] = []
        for name, value in special_tokens_dict.items():
            if name in ("additional_special_tokens", "extra_special_tokens"):
                extra = [value] if isinstance(value, (str, AddedToken)) else list(value)
                self.extra_special_tokens = [str(token) for token in extra]
                added.extend(extra)
            elif name in NAMED_TOKENS and isinstance(value, (str, AddedToken)):
                setattr(self, name, value)
                added.append(value)
            else:
                raise ValueError(f"{shown(name)} is not the name of a special token, or {shown(value)} is no token")
        return self.add_tokens(added, special_tokens=True)

    def control_tokens(self, chat_template: str) -> list[str]:
        """Return the tokens that a user must not write.

        That are special ones, and added ones that the template writes, or that stand in front of a tile.
        """
        return [
            token.content
            for token in self.added_tokens_decoder.values()
            if token.special
            or (token.content in chat_template and not token.content.isspace())
            or _TILE.fullmatch(token.content)
        ]

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

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Add tokens to the end of the vocabulary; return how many were new."""
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens)
        add = self.backend_tokenizer.add_special_tokens if special_tokens else self.backend_tokenizer.add_tokens
        return int(add(tokens))

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...
    @overload
    def convert_tokens_to_ids(self, tokens: list[str] | tuple[str, ...]) -> list[int | None]: ...
    def convert_tokens_to_ids(self, tokens: str | list[str] | tuple[str, ...]) -> int | list[int | None] | None:
        """Return the id of a token, or the ids of several; an unknown token gets `unk_token_id`, which may be None."""
        return self._id_of(tokens) if isinstance(tokens, str) else [self._id_of(token) for token in tokens]

    def _id_of(self, token: str) -> int | None:
        index: int | None = self.backend_tokenizer.token_to_id(token)
        if index is None and token != self._special_tokens.get("unk_token"):
            return self.unk_token_id
        return index

    def get_token_id(self, token: str) -> int:
        """Return the id of a token that the tokenizer must have; ValueError if it does not."""
        index = self.backend_tokenizer.token_to_id(token)
        if index is None:
            raise ValueError(
                f"the tokenizer {shown(getattr(self, 'name_or_path', ''))} has no token {shown(token)}: is it that of "
                "a SmolVLM checkpoint?"
            )
        return int(index)

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str | None: ...
    @overload
    def convert_ids_to_tokens(
        self, ids: TokenIds, skip_special_tokens: bool = False
    ) -> str | list[str | None] | None: ...
    def convert_ids_to_tokens(self, ids: TokenIds, skip_special_tokens: bool = False) -> str | list[str | None] | None:
        """Return the token of an id, or the tokens of several; None stands for an id without a token."""
        values = as_list(ids)
        id_to_token = self.backend_tokenizer.id_to_token
        if isinstance(values, int):
            token: str | None = id_to_token(values)
            return token
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [id_to_token(int(index)) for index in values if int(index) not in skipped]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens of the vocabulary to text."""
        return str(self.backend_tokenizer.decoder.decode(tokens))
