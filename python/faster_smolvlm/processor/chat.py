"""What `apply_chat_template` checks and chooses before it renders, and what it passes on to the call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..pixels.protocols import VideoProcessor
from ..text import chat_template as chat_rendering
from ..text import conversation as chat
from .arguments import check_arguments

_LOG = logging.getLogger(__name__)

ChatTemplates = str | dict[str, str] | None
"""One template, or several by name."""


def check_options(
    *,
    add_generation_prompt: bool,
    continue_final_message: bool | str,
    return_assistant_tokens_mask: bool,
    tokenize: bool,
    sanitize_control_tokens: bool,
    load_audio_from_video: bool,
) -> None:
    """Raise ValueError for options of `apply_chat_template` that exclude each other."""
    if load_audio_from_video:
        raise ValueError("SmolVLM takes no audio: load_audio_from_video must be False")
    if sanitize_control_tokens and (not tokenize or return_assistant_tokens_mask):
        raise ValueError(
            "`sanitize_control_tokens=True` requires `tokenize=True` and is not compatible with "
            "`return_assistant_tokens_mask=True`."
        )
    if continue_final_message and add_generation_prompt:
        raise ValueError(
            "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when "
            "you want the model to continue the final message, and add_generation_prompt when you want to add a "
            "header that will prompt it to start a new assistant message instead."
        )
    if continue_final_message and return_assistant_tokens_mask:
        raise ValueError("continue_final_message is not compatible with return_assistant_tokens_mask.")


def choose_template(own: ChatTemplates, chosen: str | None, conversations: Sequence[chat.Conversation]) -> str:
    """Return the template: the one chosen by name or text, that for clips, or the processor's own.

    Raises ValueError if the processor has none, or several and none of them is the default.
    """
    if chosen is not None:
        return own[chosen] if isinstance(own, dict) and chosen in own else chosen
    if chat.has_video(conversations):
        return chat_rendering.VIDEO_CHAT_TEMPLATE
    if own is None:
        raise ValueError("Cannot use apply_chat_template because this processor does not have a chat template.")
    if isinstance(own, str):
        return own
    if "default" not in own:
        raise ValueError(
            'The processor has multiple chat templates but none of them are named "default". You need to specify '
            f"which one to use by passing the `chat_template` argument. Available templates are: {', '.join(own)}"
        )
    return own["default"]


def call_arguments(
    template: str,
    processor_kwargs: Mapping[str, object] | None,
    kwargs: Mapping[str, object],
    video_processor: VideoProcessor | None,
) -> tuple[dict[str, Any], object]:
    """Return the arguments of the call, and the pictures that are given in place of those in the conversation.

    The call gets `processor_kwargs`, those of `kwargs` that the template does not read, and the sampling that the
    video processor is set to. Raises TypeError for a name that neither the template nor the call reads.
    """
    read_by_template = chat_rendering.template_variables(template)
    call = {**(processor_kwargs or {}), **{key: value for key, value in kwargs.items() if key not in read_by_template}}
    images = call.pop("images", None)
    check_arguments(call, clips=video_processor is not None)
    if video_processor is not None:
        call.setdefault("num_frames", video_processor.num_frames)
        call.setdefault("fps", video_processor.fps)
        if call["num_frames"] is not None or call["fps"] is not None:
            call.setdefault("do_sample_frames", True)
    return call, images


def warn_of_lost_text(conversations: Sequence[chat.Conversation], prompts: Sequence[str]) -> None:
    """Log if a template that reads lists of items only left out a message whose content is a string."""
    for content in chat.string_contents(conversations):
        if content.strip() and not any(content.strip() in prompt for prompt in prompts):
            _LOG.warning(
                "The chat template left out a message whose content is a string; pass a list of items such as "
                '{"type": "text", "text": "…"}.'
            )
