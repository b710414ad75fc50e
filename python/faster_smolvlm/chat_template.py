"""Rendering a conversation with a Jinja template that a stranger may have written."""

from __future__ import annotations

import bisect
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import numpy as np
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]
Conversation = list[Message]
Span = tuple[int, int]

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
        if track_generation:
            text, generated = _render_tracked(template, values)
            spans.append(generated)
        else:
            text = template.render(values)
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
    return frozenset(jinja2.meta.find_undeclared_variables(_environment().parse(chat_template)))


def plain_data(value: Any, depth: int = 0) -> Any:
    """Copy `value` as None, text, numbers, lists, tuples and dicts; anything else becomes the text "<its type>".

    Raises ValueError where it is nested deeper than `MAX_DEPTH`.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"the conversation is nested deeper than {MAX_DEPTH} levels")
    for kind in (str, int, float):  # a subclass may carry methods of its own
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, Mapping):
        return {plain_data(key, depth + 1): plain_data(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain_data(item, depth + 1) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
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


def _render_tracked(template: jinja2.Template, values: dict[str, Any]) -> tuple[str, list[Span]]:
    blocks: list[str] = []
    spans: list[Span] = []
    with _tracking(blocks, spans):
        # one by one: the place of a generation block is the length of what was rendered before it
        for block in template.generate(values):
            blocks.append(block)  # noqa: PERF402
    return "".join(blocks), spans


_tracker: ContextVar[tuple[list[str], list[Span]] | None] = ContextVar("_tracker", default=None)


@contextmanager
def _tracking(blocks: list[str], spans: list[Span]) -> Iterator[None]:
    token = _tracker.set((blocks, spans))
    try:
        yield
    finally:
        _tracker.reset(token)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: marks what the assistant said."""

    tags = {"generation"}  # noqa: RUF012 - the interface of jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note_span"), [], [], body).set_lineno(line)

    def _note_span(self, caller: Macro) -> str:
        text = str(caller())
        tracker = _tracker.get()
        if tracker is not None:
            blocks, spans = tracker
            start = sum(map(len, blocks))
            spans.append((start, start + len(text)))
        return text


class _DictBuilder:
    """`dict(…)` for templates, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return a dict with the given keys."""
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """`namespace(…)` for templates, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template cannot store the underscore-prefixed name {name!r}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML, which a prompt is not
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_DictBuilder(), namespace=_Namespace
    )
    return environment


@lru_cache(maxsize=64)
def _compile(chat_template: str) -> jinja2.Template:
    return _environment().from_string(chat_template)
