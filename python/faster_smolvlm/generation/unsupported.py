"""Settings of Transformers that this package does not have, and what becomes of them."""

from __future__ import annotations

from collections.abc import Container, Mapping

from ..quoting import shown

# Settings of Transformers that this package does not have, with the values that mean "off"; others are an error.
OFF: dict[str, tuple[object, ...]] = {
    "assistant_early_exit": (None,),
    "assistant_ensemble_weight": (None,),
    "assistant_model": (None,),
    "cache_config": (None,),
    # One preallocated cache serves all of these; in Transformers they are the same for a model without windows.
    "cache_implementation": (None, "dynamic", "static", "hybrid", "hybrid_chunked", "sliding_window"),
    "continuous_batching_config": (None,),
    "custom_generate": (None,),
    "diversity_penalty": (None, 0.0),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "exponential_decay_length_penalty": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "guidance_scale": (None, 1.0),
    "is_assistant": (None, False),
    "low_memory": (None, False),
    "negative_prompt_attention_mask": (None,),
    "negative_prompt_ids": (None,),
    "num_beam_groups": (None, 1),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
    "penalty_alpha": (None,),
    "prefix_allowed_tokens_fn": (None,),
    "remove_invalid_values": (None, False),
    "renormalize_logits": (None, False),
    "sequence_bias": (None,),
    "speculation_type": (None,),
    "synced_gpus": (None, False),
    "token_healing": (None, False),
    "top_h": (None,),
    "typical_p": (None, 1.0),
    "use_mtp": (None, False),
    "watermarking_config": (None,),
}
# Settings of Transformers that change nothing about the tokens of this model.
WITHOUT_EFFECT = frozenset(
    {
        "_from_model_config",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "compile_config",
        "decoder_start_token_id",
        "disable_compile",
        "max_cache_len",
        "max_matching_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "target_lookbehind",
        "transformers_version",
    }
)
# In a file these change nothing about a call that is greedy, that has one beam, or that returns ids alone.
_DRAWING = frozenset({"epsilon_cutoff", "eta_cutoff", "top_h", "typical_p"})
_BEAMS = frozenset({"diversity_penalty", "num_beam_groups"})
_RETURNED = frozenset({"output_attentions", "output_hidden_states"})


def idle_settings(*, draws: bool, beams: int, returns_all: bool) -> frozenset[str]:
    """Return the names of settings that change nothing in such a call, whatever a checkpoint's file says."""
    none: frozenset[str] = frozenset()
    return (none if draws else _DRAWING) | (none if beams > 1 else _BEAMS) | (none if returns_all else _RETURNED)


def refuse(settings: Mapping[str, object], *, by_caller: Container[str], file: str, idle: Container[str]) -> None:
    """Raise NotImplementedError for a setting that is not off, unless it comes from the file and is `idle`.

    `by_caller` are the names that a caller gave; the others come from `file`, or, if that is "", from a config in
    memory.
    """
    for name, value in settings.items():
        if name not in OFF or _is_off(value, OFF[name]):
            continue
        if name in by_caller or not file:
            if name not in by_caller and name in idle:
                continue
            raise NotImplementedError(
                f"generate(): {name}={shown(value)} is not supported. Leave it out, or pass a callable in "
                "logits_processor= or stopping_criteria= that does the same."
            )
        if name not in idle:
            raise NotImplementedError(
                f"generate(): {shown(file)} sets {name}={shown(value)}, which is not supported. Pass {name}=None to "
                "turn it off for a call, or take it out of the file."
            )


def _is_off(value: object, off: tuple[object, ...]) -> bool:
    """Whether a value is one of `off`; arrays and other objects, whose comparison may be anything, are not."""
    return value is None or (isinstance(value, (str, int, float)) and value in off)
