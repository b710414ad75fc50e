"""`GenerationMixin`: `generate` of the torch model, with the arguments of Transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from torch import Tensor, nn

from ..checkpoint.configuration_smolvlm import SmolVLMConfig
from ..checkpoint.hub import Checkpoint
from ..generation.choice import ServedBy, forced_engine
from ..generation.config import FILE_NAME, GenerationConfig
from ..generation.logits import LogitsProcessor
from ..generation.loop import Decoding
from ..generation.plan import Plan, Request
from ..generation.stopping import StoppingCriterion
from ..generation.streamers import Streamer, ended
from ..integers import count_of
from .engines.decode_graph import GraphHolder
from .engines.eager import TorchEngine
from .engines.graph import make_engine, warm_up
from .engines.model import Backbone
from .engines.model_inputs import NAMES, ModelInputs, check_mask, check_prompts
from .engines.native import NativeTorchEngine, native_engine
from .engines.native_twin import NativeTwin
from .kv_cache import KVCache
from .modeling_base import SmolVLMPreTrainedModel
from .modeling_outputs import BaseModelOutputWithPooling, ModelOutput

AnyEngine: TypeAlias = TorchEngine | NativeTorchEngine


class GenerateOutput(ModelOutput):
    """What `generate(return_dict_in_generate=True)` returns: `sequences` int64 [rows, length], padded after their end.

    `scores` (after the processors) and `logits` (before) hold one float32 [rows, vocabulary] a step if asked for.
    Beam search adds `sequences_scores` [rows] and `beam_indices` [rows, new tokens].
    """

    sequences: Tensor
    sequences_scores: Tensor | None
    scores: tuple[Tensor, ...] | None
    logits: tuple[Tensor, ...] | None
    beam_indices: Tensor | None
    past_key_values: KVCache | None


class GenerationMixin(SmolVLMPreTrainedModel[SmolVLMConfig]):
    """Adds `generate` to a model with a language head; `engines.model` says what the engines need of it."""

    generation_config: GenerationConfig
    generation_engine: ServedBy | None = None
    """Which engine served the last call of `generate`, and why it was not the native one."""
    model: Backbone
    lm_head: nn.Linear
    _native: NativeTwin
    _decode_graph: GraphHolder

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embeddings."""
        raise NotImplementedError

    def get_image_features(
        self, pixel_values: Tensor, pixel_attention_mask: Tensor | None = None, *, return_dict: bool | None = None
    ) -> BaseModelOutputWithPooling:
        """Encode pictures."""
        raise NotImplementedError

    def _read_extras(self, files: Checkpoint) -> None:
        path = files.find(FILE_NAME)
        if path is not None:
            self.generation_config = GenerationConfig.from_file(path)

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: object = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        stopping_criteria: Sequence[StoppingCriterion] | None = None,
        streamer: Streamer | None = None,
        **arguments: Any,
    ) -> Tensor | GenerateOutput:
        """Generate after prompts: greedily, or by drawing with `do_sample=True`.

        Model inputs: `input_ids` (or `inputs`) int64 [rows, length], `attention_mask` of that shape with padding on the
        left, `pixel_values` [rows, pictures, 3, height, width], `pixel_attention_mask` [rows, pictures, height, width],
        or `mm_encoder_outputs` in place of the pixels, or `inputs_embeds` [rows, length, hidden_size]. Pictures are
        encoded once, whatever `num_return_sequences`.

        `logits_processor` and `stopping_criteria` are lists of callables `(input_ids, scores)`, those of Transformers
        included; `streamer` gets each token (`put`, `end`) and one that has `closed` set ends the call; `tokenizer` is
        needed for `stop_strings`; `generator` or `seed` make drawing repeatable. `engine` forces "native" or "torch",
        as the environment variable FASTER_SMOLVLM_ENGINE does. By default the native engine serves a model on the CPU,
        outside training, whose modules are as they were built, if it can compute the call; `generation_engine` says
        which one did. It keeps a packed copy of the weights, and packs anew when they change. A row ends where the
        native engine has no more positions, at twice the limit of the config. All other arguments are settings of
        `GenerationConfig`, and win over the `generation_config` given and over the model's own.

        Returns int64 [rows * num_return_sequences, length] with the prompt (without, after `inputs_embeds` alone), or a
        `GenerateOutput`. Raises ValueError for arguments that are unknown or do not fit, NotImplementedError for
        settings of Transformers that this package does not have.
        """
        with ended(streamer):
            model_inputs, forced = _model_inputs(inputs, arguments)
            request = Request.of(generation_config, logits_processor, stopping_criteria, **arguments)
            plan, engine = self._plan(model_inputs, request, forced)
            if (plan.config.num_beams or 1) > 1:
                if streamer is not None:
                    raise ValueError("beam search knows its answer only at the end: leave out streamer, or num_beams.")
                return _search(plan, engine)
            call = plan.decoding(engine)
            call.run(streamer)
        self._note_engine(engine)
        sequences: Tensor = call.ids
        if not plan.config.return_dict_in_generate:
            return sequences
        cache = engine.past_key_values
        return GenerateOutput(sequences=sequences, scores=call.scores, logits=call.logits, past_key_values=cache)

    def warm_up(self, rows: int | Sequence[int] = 1, *, tokens: int = 1024) -> str:
        """Capture on a GPU what `generate` replays for batches of `rows` rows (a number or several, at most 16).

        `tokens` is the longest prompt and answer together that is prepared for; a longer one is captured when it comes.
        For servers: call it before the threads start, with every number of rows that a batch may have or shrink to.
        Returns "", or why calls of this model as it is now go without a captured graph, which is so on every CPU.
        Raises ValueError for numbers that no graph serves.
        """
        numbers = [count_of("rows", n, 1) for n in ([rows] if isinstance(rows, int) else rows)]
        return warm_up(self, numbers, count_of("tokens", tokens, 1))

    def start_generation(
        self,
        inputs: Tensor | None = None,
        generation_config: object = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        stopping_criteria: Sequence[StoppingCriterion] | None = None,
        **arguments: Any,
    ) -> Decoding[AnyEngine]:
        """Check the arguments of `generate` and return the call, whose steps are made by iterating over it."""
        model_inputs, forced = _model_inputs(inputs, arguments)
        request = Request.of(generation_config, logits_processor, stopping_criteria, **arguments)
        plan, engine = self._plan(model_inputs, request, forced)
        if (plan.config.num_beams or 1) > 1:
            raise ValueError("beam search knows its answer only at the end: it cannot be made step by step.")
        return plan.decoding(engine)

    def _plan(self, inputs: ModelInputs, request: Request, forced: str | None) -> tuple[Plan, AnyEngine]:
        """Check the inputs, set the call up and choose its engine, the one that is `forced` if any is."""
        config = request.resolve(self.generation_config, inputs=(*NAMES, "streamer", "engine"))
        vocabulary = self._vocabulary()
        prompts = check_prompts(inputs.input_ids, inputs.inputs_embeds, vocabulary)
        mask = check_mask(inputs, prompts, config)
        plan = Plan.of(
            request, config, prompts.to(self.device), mask=mask,
            prompt_length=None if inputs.inputs_embeds is None else inputs.inputs_embeds.shape[1],
        )  # fmt: skip
        ids = prompts if inputs.inputs_embeds is None else None
        inputs = replace(inputs, input_ids=ids, attention_mask=mask).to(self.device)
        return plan, self._engine(plan, inputs, forced_engine(forced))

    def _vocabulary(self) -> int:
        """Return how many token ids there are: what trainers put around the embeddings has a weight, or nothing."""
        weight = getattr(self.get_input_embeddings(), "weight", None)
        return len(weight) if isinstance(weight, Tensor) and weight.ndim == 2 else self.config.text_config.vocab_size

    def _engine(self, plan: Plan, inputs: ModelInputs, forced: str | None) -> AnyEngine:
        """Choose the engine of a call. Raises ValueError if the native one is forced and cannot serve it."""
        config, rows = plan.config, len(inputs.prompt) * plan.copies
        native: NativeTorchEngine | str = "it was asked to leave it to torch"
        if forced != "torch":
            native = native_engine(self, self._native, inputs, config, max_new_tokens=plan.max_new_tokens, rows=rows)
        if not isinstance(native, str):
            self.generation_engine = ServedBy(native.name)
            return native
        if forced == "native":
            raise ValueError(f"the native engine cannot serve this call: {native}.")
        engine = make_engine(
            self,
            inputs,
            max_new_tokens=plan.max_new_tokens,
            rows=rows,
            use_cache=config.use_cache is not False or inputs.inputs_embeds is not None,
            keep_cache=bool(config.return_dict_in_generate),
        )
        self.generation_engine = ServedBy(engine.name, native)
        return engine

    def _note_engine(self, engine: AnyEngine) -> None:
        """Note the engine once more after the call: whether a graph was captured shows in its course."""
        reason = self.generation_engine.reason if self.generation_engine is not None else ""
        self.generation_engine = ServedBy(engine.name, reason)


def _model_inputs(inputs: Tensor | None, arguments: dict[str, Any]) -> tuple[ModelInputs, str | None]:
    """Take what is for the model, and the name of a forced engine, out of the arguments of `generate`."""
    if arguments.pop("past_key_values", None) is not None:
        raise NotImplementedError("generate() makes its own cache: past_key_values is not supported. Leave it out.")
    given = {name: arguments.pop(name, None) for name in NAMES}
    if inputs is not None:
        if given["input_ids"] is not None:
            raise ValueError("inputs and input_ids are the same argument: pass one of them.")
        given["input_ids"] = inputs
    if given["pixel_values"] is not None and given["mm_encoder_outputs"] is not None:
        raise ValueError("pass either pixel_values or mm_encoder_outputs, the pictures encoded, not both.")
    return ModelInputs(**given), arguments.pop("engine", None)


def _search(plan: Plan, engine: AnyEngine) -> Tensor | GenerateOutput:
    assert isinstance(engine, TorchEngine)  # the native engine has no beams, so it did not offer itself
    search = plan.search(engine)
    search.run()
    sequences: Tensor = search.ids
    if not plan.config.return_dict_in_generate:
        return sequences
    return GenerateOutput(
        sequences=sequences,
        sequences_scores=search.sequences_scores if plan.config.output_scores else None,
        scores=search.scores,
        logits=search.logits,
        beam_indices=search.beam_indices,
        past_key_values=engine.past_key_values,
    )
