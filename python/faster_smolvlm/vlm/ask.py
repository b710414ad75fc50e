"""What a caller asks of one call, in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np

from ..generation.config import ARGUMENTS, asks_to_draw
from ..generation.plan import REQUEST_NAMES
from ..generation.sampling import make_generator
from ..integers import as_int
from ..native.reuse import salt_key
from ..quoting import shown
from ..unknown_names import UnknownSettingError, check_names


@dataclass(frozen=True)
class Ask:
    """The options of `SmolVLM.generate`, which says what they mean; `sampling` are those of the generation."""

    max_new_tokens: int = 128
    min_new_tokens: int = 0
    do_image_splitting: bool | None = None
    skip_special_tokens: bool = True
    reuse: bool = True
    cache_salt: str | bytes | None = None
    control_tokens: bool = False
    on_error: str = "raise"
    progress: Callable[[int, int], None] | None = None
    wait_seconds: float | None = None
    sampling: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, also_named: Iterable[str] = (), /, **options: Any) -> Ask:
        """Take the options of a call; those without a field of their own are `sampling`.

        Raises TypeError for an unknown one, and may suggest one of `also_named`, or a `cache_salt` of another
        type; ValueError for another `on_error`.
        """
        own = {option.name for option in fields(cls)} - {"sampling"}
        known = {*own, *ARGUMENTS, *REQUEST_NAMES} - {"tokenizer"}
        if options.get("tokenizer") is not None:
            raise UnknownSettingError("tokenizer: SmolVLM has the tokenizer of its processor; leave tokenizer= out.")
        options.pop("tokenizer", None)
        check_names(options, known, also_named=also_named, error=UnknownSettingError)
        if options.get("on_error", "raise") not in ("raise", "return"):
            raise ValueError(f"on_error has to be 'raise' or 'return', got {shown(options['on_error'])}")
        salt_key(options.get("cache_salt"))
        return cls(
            **{name: value for name, value in options.items() if name in own},
            sampling={name: value for name, value in options.items() if name not in own},
        )

    def with_generator(self) -> Ask:
        """Return this with one source of randomness for several generations: the same `seed` would repeat itself."""
        sampling = dict(self.sampling)
        seed, given = sampling.pop("seed", None), sampling.get("generator")
        if seed is not None or given is not None:
            sampling["generator"] = make_generator(np.empty(0), cast("int | None", seed), given)
        return replace(self, sampling=sampling)

    def settings(self) -> dict[str, Any]:
        """Return what `start_generation` takes: settings of `GenerationConfig`, and what it takes beside them.

        Temperature 0 means greedy; without `do_sample`, tokens are drawn if a setting for drawing is given. Raises
        ValueError for several answers to a prompt.
        """
        found: dict[str, Any] = {
            **self.sampling,
            "max_new_tokens": self.max_new_tokens,
            "min_new_tokens": self.min_new_tokens,
        }
        if found.get("temperature") == 0:
            found |= {"do_sample": False, "temperature": None}
        found.setdefault("do_sample", asks_to_draw(found))
        if as_int(found.get("num_return_sequences", 1)) != 1:
            raise ValueError("num_return_sequences is for model.generate(); repeat the prompt in a list instead.")
        return found
