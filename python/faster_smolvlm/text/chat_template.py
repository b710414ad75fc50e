"""Rendering a conversation with a Jinja template that a stranger may have written."""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.meta
import numpy as np

from .template_sandbox import MAX_TEXT, Span, environment, tracked_blocks

Message = dict[str, Any]
Conversation = list[Message]

MAX_DEPTH = 64
"""How deep lists and mappings of a conversation may be nested."""

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

_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_CONTINUE_MARK = "CONTINUE_FINAL_MESSAGE_TAG "
_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


def render(
    conversations: Sequence[Any],
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
    as a placeholder that names the type. Raises jinja2.TemplateError where the template is wrong or reaches out of its
    sandbox, TypeError and ValueError for messages of another form.
    """
    template = _compile(chat_template)
    if tools is not None and not all(isinstance(tool, dict) for tool in tools):
        raise ValueError("`tools` must be JSON schemas (dicts); functions are not turned into schemas here.")
    if documents is not None and not all(isinstance(document, dict) for document in documents):
        raise TypeError("Documents should be a list of dicts with 'title' and 'text' keys!")
    shared = {"tools": plain_data(tools), "documents": plain_data(documents), **plain_data(variables)}

    texts, spans = [], []
    for conversation in conversations:
        messages = [_with_reasoning_names(_as_message(message)) for message in conversation]
        ending = _mark_ending(messages, continue_final_message, chat_template) if continue_final_message else None
        values = {"messages": messages, "add_generation_prompt": add_generation_prompt, **shared}
        text, generated = _render(template, values)
        if track_generation:
            spans.append(generated)
        texts.append(text if ending is None else _cut_at_mark(text, ending))
    return texts, spans


def tracks_generation(chat_template: str) -> bool:
    """Whether the template marks what the assistant says with `{% generation %}` blocks."""
    return _GENERATION_TAG.search(chat_template) is not None


def assistant_masks(
    offsets: Sequence[Sequence[Span]], spans: Sequence[Sequence[Span]], replaced: Sequence[Sequence[dict[str, Any]]]
) -> list[list[int]]:
    """Return, for each text, 1 for each token that overlaps what the assistant said and 0 for the others.

    `offsets` are the places of the tokens in the text after media were expanded, `spans` what the assistant said in the
    text before that, `replaced` what `replace_placeholders` reported.
    """
    masks = []
    for row, said, places in zip(offsets, spans, replaced, strict=True):
        ends = [place["span"][1] for place in places]
        gained = [0, *(place["new_span"][1] - place["span"][1] for place in places)]
        moved = [[char + gained[bisect.bisect_right(ends, char)] for char in span] for span in said]
        masks.append([int(any(first < end and last > start for start, end in moved)) for first, last in row])
    return masks


@lru_cache(maxsize=64)
def template_variables(chat_template: str) -> frozenset[str]:
    """Return the names that the template reads from outside."""
    return frozenset(jinja2.meta.find_undeclared_variables(environment().parse(chat_template)))


def plain_data(value: Any, depth: int = 0) -> Any:
    """Copy `value` as None, text, numbers, lists, tuples and dicts; anything else becomes the text "<its type>".

    Raises ValueError where it is nested deeper than `MAX_DEPTH`.
    """
    kind = type(value)
    if value is None or kind in (str, int, float, bool):
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"the conversation is nested deeper than {MAX_DEPTH} levels")
    if kind is dict or isinstance(value, Mapping):
        return {plain_data(key, depth + 1): plain_data(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain_data(item, depth + 1) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    for plain in (str, int, float):  # a subclass may carry methods of its own
        if isinstance(value, plain):
            return str.__str__(value) if plain is str else plain(value)
    if isinstance(value, np.generic):
        return plain_data(value.item(), depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_data(getattr(value, field.name), depth + 1) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)
    return plain_data(dump(), depth + 1) if callable(dump) else f"<{type(value).__name__}>"


def _as_message(message: Any) -> Message:
    plain = plain_data(message)
    if not isinstance(plain, dict):
        raise TypeError(f"Chat messages should be dicts, dataclasses or pydantic models, but got {message!r}.")
    return plain


def _with_reasoning_names(message: Message) -> Message:
    """Offer the reasoning of a message under the two names that templates read."""
    reasoning = next((message[name] for name in _REASONING_FIELDS if message.get(name) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _mark_ending(messages: Conversation, field: bool | str, chat_template: str) -> str:
    """Put a mark after the text of the last message, to cut there; return that text."""
    name = field if isinstance(field, str) else "content"
    if not messages:
        raise ValueError("continue_final_message is set but the conversation is empty!")
    last = messages[-1]
    content = last.get(name)
    if content is None:
        raise ValueError(f'continue_final_message is set but the final message has no "{name}" to continue!')
    names = [name]
    if name in _REASONING_FIELDS:
        names = [other for other in _REASONING_FIELDS if last.get(other) == content]
    if not any(other in chat_template for other in names):
        raise ValueError(f'continue_final_message is set to "{name}", which the chat template does not read')
    if isinstance(content, (list, tuple)):
        block = next((item for item in reversed(content) if isinstance(item, dict) and "text" in item), None)
        if block is None:
            raise ValueError(
                "continue_final_message is set but we could not find any text to continue in the final message!"
            )
        text = str(block["text"])
        block["text"] = text + _CONTINUE_MARK
        return text
    for other in names:
        last[other] = f"{last[other]}{_CONTINUE_MARK}"
    return str(content)


def _cut_at_mark(text: str, ending: str) -> str:
    mark = _CONTINUE_MARK.strip()
    if ending.strip() not in text or mark not in text:
        raise ValueError(
            "continue_final_message is set but the final message does not appear in the chat after applying the chat "
            "template: the template leaves out parts of it."
        )
    place = text.rindex(mark)
    kept = text[:place]
    return kept if text.startswith(_CONTINUE_MARK, place) else kept.rstrip()


def _render(template: jinja2.Template, values: dict[str, Any]) -> tuple[str, list[Span]]:
    """Return the text and the spans of its generation blocks; the place of one is the length of what came before it."""
    blocks: list[str] = []
    with tracked_blocks(blocks) as spans:
        length = 0
        for block in template.generate(values):
            blocks.append(block)
            length += len(block)
            if length > MAX_TEXT:
                raise jinja2.exceptions.SecurityError(f"a chat template may write at most {MAX_TEXT} characters")
    return "".join(blocks), spans


@lru_cache(maxsize=64)
def _compile(chat_template: str) -> jinja2.Template:
    try:
        return environment().from_string(chat_template)
    except (RecursionError, MemoryError):
        raise jinja2.TemplateSyntaxError("the chat template is nested too deeply", lineno=1) from None
