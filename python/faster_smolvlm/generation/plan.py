"""The set-up of a generation, the same for every engine: from what a caller asks for to a loop that is ready to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from ..quoting import shown
from .arrays import Array
from .beam import BeamSearch
from .config import GenerationConfig, lengths, resolve
from .logits import LogitsProcessor, build_processors
from .loop import Decoding, EngineT, row_limits
from .sampling import Sampler, make_generator
from .stopping import StoppingCriterion, StopRules, build_stop_rules


@dataclass(frozen=True)
class Request:
    """What a caller asks of one generation, apart from the inputs of the model.

    `generation_config` is a `GenerationConfig`, one of Transformers, a mapping or None, over which `settings` win.
    `logits_processor` and `stopping_criteria` are callables `(ids, scores)`; `tokenizer` is needed for stop strings;
    `generator` or `seed` make drawing repeatable.
    """

    generation_config: object = None
    logits_processor: Sequence[LogitsProcessor] = ()
    stopping_criteria: Sequence[StoppingCriterion] = ()
    tokenizer: object = None
    generator: object = None
    seed: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        generation_config: object,
        logits_processor: Sequence[LogitsProcessor] | None,
        stopping_criteria: Sequence[StoppingCriterion] | None,
        *,
        tokenizer: object = None,
        generator: object = None,
        seed: int | None = None,
        **settings: object,
    ) -> Request:
        """Take the arguments of `generate` that are not inputs of the model."""
        processors = _callables("logits_processor", logits_processor)
        criteria = _callables("stopping_criteria", stopping_criteria)
        return cls(generation_config, processors, criteria, tokenizer, generator, seed, settings)

    def resolve(self, model_default: GenerationConfig, inputs: Iterable[str] = ()) -> GenerationConfig:
        """Return all settings of the call; see `config.resolve`, also for the errors.

        `inputs` are the names of what the model takes, which the error for an unknown argument may suggest.
        """
        also_named = (*REQUEST_NAMES, *inputs)
        return resolve(self.settings, self.generation_config, model_default, also_named=also_named)


CallableT = TypeVar("CallableT")


def _callables(name: str, given: Sequence[CallableT] | None) -> tuple[CallableT, ...]:
    if given is None:
        return ()
    found = tuple(given) if isinstance(given, Iterable) else None
    if found is None or not all(map(callable, found)):
        raise ValueError(f"{name} has to be a list of callables, got {shown(given)}.")
    return found


REQUEST_NAMES = tuple(entry.name for entry in fields(Request) if entry.name != "settings")
"""The arguments of `generate` that are neither inputs of the model nor settings."""


@dataclass(frozen=True)
class Plan:
    """A generation that lacks only its engine.

    `prompts` are int64 [rows, length]; `config` is resolved, with `min_new_tokens` set; `copies` is how many sequences
    of each prompt are worked on, beams included, and `padding` the number of padding tokens at the start of each, None
    if there are none.
    """

    request: Request
    config: GenerationConfig
    prompts: Array
    copies: int
    max_new_tokens: int
    padding: Sequence[int] | None

    @classmethod
    def of(
        cls,
        request: Request,
        config: GenerationConfig,
        prompts: Array,
        *,
        mask: Array | None = None,
        prompt_length: int | None = None,
    ) -> Plan:
        """Set a call up.

        `mask` [rows, length] is 0 for padding, None if there is none. `prompt_length` is for prompts that the model
        does not read as ids: how many positions they take. Raises ValueError if `max_length` leaves nothing to do.
        """
        length = prompts.shape[1] if prompt_length is None else prompt_length
        max_new_tokens, min_new_tokens = lengths(config, prompt_length=length)
        copies = max(config.num_beams or 1, config.num_return_sequences or 1)
        padding: list[int] | None = None
        if mask is not None:
            padding = [row.index(True) if True in row else 0 for row in (mask != 0).tolist() for _ in range(copies)]
        config = replace(config, min_new_tokens=min_new_tokens)
        return cls(request, config, prompts, copies, max_new_tokens, padding if padding and any(padding) else None)

    def decoding(self, engine: EngineT) -> Decoding[EngineT]:
        """Return the loop over `engine`. Raises ValueError for settings whose values make no sense."""
        request, config = self.request, self.config
        copies = config.num_return_sequences or 1
        callables = bool(request.logits_processor or request.stopping_criteria)
        return Decoding(
            engine,
            self.prompts,
            copies=copies,
            max_new_tokens=self.max_new_tokens,
            pad_id=config.pad_id if config.eos_ids else None,
            processors=self._processors(),
            sees_every_row=callables or bool(config.return_dict_in_generate),
            sampler=Sampler(bool(config.do_sample), len(self.prompts) * copies, self._generator()),
            stop=self._stop_rules(row_limits(engine, copies)),
            config=config,
        )

    def search(self, engine: EngineT) -> BeamSearch[EngineT]:
        """Return the beam search over `engine`, for `num_beams` above 1."""
        return BeamSearch(
            engine,
            self.prompts,
            max_new_tokens=self.max_new_tokens,
            pad_id=self.config.pad_id,
            processors=self._processors(),
            generator=self._generator(),
            stop=self._stop_rules(None),
            config=self.config,
        )

    def _processors(self) -> list[LogitsProcessor]:
        return build_processors(
            self.config,
            prompt_length=self.prompts.shape[1],
            padding=self.padding,
            custom=self.request.logits_processor,
        )

    def _stop_rules(self, limits: Sequence[int] | None) -> StopRules:
        return build_stop_rules(
            self.config,
            max_new_tokens=self.max_new_tokens,
            tokenizer=self.request.tokenizer,
            criteria=self.request.stopping_criteria,
            row_limits=limits,
        )

    def _generator(self) -> object:
        return make_generator(self.prompts, self.request.seed, self.request.generator)
