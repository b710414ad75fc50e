"""Rendering a conversation with a Jinja template that a stranger may have written."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from traceback import walk_tb
from typing import Any, NamedTuple

import jinja2
import jinja2.meta

from ..quoting import quoted, shown
from .conversation import Conversation, Message, has_video, string_contents
from .final_message import cut_at_mark, mark_ending, with_reasoning_names
from .plain_data import plain_data
from .template_errors import template_error
from .template_limits import MAX_TEXT, metered, refuse
from .template_sandbox import Span, environment, tracked

_LOG = logging.getLogger(__name__)

VIDEO_CHAT_TEMPLATE = (
    "<|im_start|>"
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'text' %}{{ item['text'] }}"
    "{% elif item['type'] == 'image' %}{{ '<image>' }}"
    "{% elif item['type'] == 'video' %}{{ '<video>' }}"
    "{% endif %}"
    "{% endfor %}"
    "<end_of_utterance>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Used for conversations with a video, because the template that the checkpoints ship leaves videos out."""

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


def check_combination(
    *,
    add_generation_prompt: bool,
    continue_final_message: bool | str,
    return_assistant_tokens_mask: bool,
    tokenize: bool,
    sanitize_control_tokens: bool,
) -> None:
    """Raise ValueError for arguments of `apply_chat_template` that contradict each other."""
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


def choose_template(
    own: str | Mapping[str, str] | None, chosen: str | None, conversations: Sequence[Conversation]
) -> str:
    """Return the template: the one that the caller chose by name or text, that for videos, or the processor's own.

    Raises ValueError if the processor has none, or none named "default", TypeError for one that is no text.
    """
    if chosen is not None:
        if not isinstance(chosen, str):
            raise TypeError(f"chat_template must be a text or the name of one, got {shown(chosen)}")
        return own[chosen] if isinstance(own, Mapping) and chosen in own else chosen
    if has_video(conversations):
        return VIDEO_CHAT_TEMPLATE
    if own is None:
        raise ValueError("Cannot use apply_chat_template because this processor does not have a chat template.")
    if isinstance(own, str):
        return own
    if "default" not in own:
        raise ValueError(
            'The processor has multiple chat templates but none of them are named "default". You need to specify '
            f"which one to use by passing the `chat_template` argument. Available templates are: {shown(list(own))}"
        )
    return own["default"]


def render(
    conversations: Sequence[Iterable[object]],
    chat_template: str,
    *,
    tools: list[dict[str, Any]] | None = None,
    documents: list[dict[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    continue_final_message: bool | str = False,
    track_generation: bool = False,
    **variables: Any,
) -> tuple[list[str], list[list[Span]]]:
    """Render each conversation; with `track_generation` also return the spans of its `{% generation %}` blocks.

    A template sees plain data only: what is no text, number, list or mapping (a picture, an array, a tensor) reaches it
    as a placeholder that names the type. Raises jinja2.TemplateError, with the line, for whatever the template does
    wrong: SecurityError if it reaches out of its sandbox or takes more time or memory than it may (`template_limits`),
    TemplateRuntimeError for errors of Python. Raises TypeError and ValueError for messages of another form.
    """
    template = _compile(chat_template).template
    if tools is not None and not all(isinstance(tool, dict) for tool in tools):
        raise ValueError("`tools` must be JSON schemas (dicts); functions are not turned into schemas here.")
    if documents is not None and not all(isinstance(document, dict) for document in documents):
        raise TypeError("Documents should be a list of dicts with 'title' and 'text' keys!")
    shared = {"tools": plain_data(tools), "documents": plain_data(documents), **plain_data(variables)}

    texts: list[str] = []
    spans: list[list[Span]] = []
    for conversation in conversations:
        messages = [with_reasoning_names(_as_message(message)) for message in conversation]
        ending = mark_ending(messages, continue_final_message, chat_template) if continue_final_message else None
        values = {"messages": messages, "add_generation_prompt": add_generation_prompt, **shared}
        text, generated = _render(template, values)
        if track_generation:
            spans.append(generated)
        texts.append(text if ending is None else cut_at_mark(text, ending))
    return texts, spans


def warn_of_lost_text(conversations: Sequence[Conversation], prompts: Sequence[str]) -> None:
    """Log each message whose content is a string that no prompt holds: many templates read lists of items only."""
    for content in string_contents(conversations):
        if content.strip() and not any(content.strip() in prompt for prompt in prompts):
            _LOG.warning(
                "The chat template left out a message whose content is a string; pass a list of items such as "
                '{"type": "text", "text": "…"}.'
            )


def warn_of_lost_parts(conversations: Sequence[Conversation], chat_template: str) -> None:
    """Log, once for each type, parts of messages of a type that the template does not name: it leaves them out."""
    for messages in conversations:
        for message in messages:
            content = message.get("content")
            for item in content if isinstance(content, (list, tuple)) else ():
                kind = item.get("type") if isinstance(item, dict) else None
                if isinstance(kind, str) and kind not in ("text", "image", "video") and kind not in chat_template:
                    _log_lost_part(quoted(kind))


@lru_cache(maxsize=64)
def _log_lost_part(kind: str) -> None:
    _LOG.warning(
        "The chat template leaves out parts of messages of the type %s, as in Transformers; it reads text, image and "
        "video. `SmolVLM.chat` understands more types and refuses the others.",
        kind,
    )


def tracks_generation(chat_template: str) -> bool:
    """Whether the template marks what the assistant writes with `{% generation %}` blocks."""
    return _GENERATION_TAG.search(chat_template) is not None


def template_variables(chat_template: str) -> frozenset[str]:
    """Return the names that the template reads from outside."""
    return _compile(chat_template).variables


def _as_message(message: object) -> Message:
    plain: Message = plain_data(message)
    if not isinstance(plain, dict):
        raise TypeError(f"Chat messages should be dicts, dataclasses or pydantic models, but got {shown(message)}.")
    return plain


def _render(template: jinja2.Template, values: dict[str, Any]) -> tuple[str, list[Span]]:
    """Return the text, and the spans of its generation blocks: where one begins is known while blocks are written."""
    blocks: list[str] = []
    with tracked() as written:
        try:
            for block in template.root_render_func(template.new_context(values)):
                blocks.append(block)
                written.length += len(block)
                if written.length > MAX_TEXT:
                    refuse(f"writes more than {MAX_TEXT} characters")
            return "".join(blocks), written.spans
        except Exception as error:
            found = template_error(error, _line_of(error, template))
    raise found


def _line_of(error: BaseException, template: jinja2.Template) -> int | None:
    """Return the innermost line of the template that an error came from."""
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == "<template>"]
    return template.get_corresponding_lineno(lines[-1]) if lines else None


class _Compiled(NamedTuple):
    template: jinja2.Template
    variables: frozenset[str]


@lru_cache(maxsize=64)
def _compile(chat_template: str) -> _Compiled:
    try:
        with metered():
            tree = environment().parse(chat_template)
            variables = jinja2.meta.find_undeclared_variables(tree)
            return _Compiled(environment().from_string(tree), frozenset(variables))
    except Exception as error:
        found = template_error(error)
    raise found
