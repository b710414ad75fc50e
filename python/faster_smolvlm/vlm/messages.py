"""The messages of a conversation as the common clients send them, in the form that chat templates read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

import numpy as np

from ..media.kinds import is_source
from ..quoting import shown
from ..text.conversation import Conversation, Message
from ..text.well_formed import check_text
from .parts import Fields, MessageError, fields_of, is_absent, read_part, refuse_unknown

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}
"""The roles that are understood, and how the chat template calls them."""

# They say nothing that the model could show. A `type` is "message", or with LangChain the role.
_WITHOUT_EFFECT = frozenset({
    "role", "content", "type", "id", "name", "status", "phase", "annotations", "additional_kwargs",
    "response_metadata", "usage_metadata", "example", "metadata", "provider_specific_fields", "stop_reason",
    "stop_sequence", "model", "usage", "container",
})  # fmt: skip
_TOOLS = frozenset({"tool_calls", "function_call", "invalid_tool_calls", "tool_call_id"})


def read_messages(messages: object) -> tuple[Conversation, list[object], list[object]]:
    """Return the messages with texts and placeholders, and the sources of their pictures and of their clips, in order.

    Raises MessageError for anything that is not understood: nothing is left out of a conversation without a word.
    """
    found: Conversation = []
    sources: dict[str, list[object]] = {"image": [], "video": []}
    for index, message in enumerate(_listed(messages)):
        role, content, name = _message(message, f"message {index}")
        parts: list[Message] = []
        for number, given in enumerate(content):
            part = read_part(given, f"message {index}, part {number}")
            if part.kind == "text":
                parts.append({"type": "text", "text": part.value})
            else:
                parts.append({"type": part.kind})
                sources[part.kind].append(part.value)
        found.append({"role": role, "content": parts, **name})
    return found, sources["image"], sources["video"]


def _listed(messages: object) -> list[object]:
    wrong = fields_of(messages) is not None or is_source(messages) or not isinstance(messages, Iterable)
    listed = [] if wrong or not isinstance(messages, Iterable) else list(messages)
    if wrong or any(isinstance(message, (list, tuple)) for message in listed):
        raise MessageError(
            "messages has to be one conversation: a list of messages such as {'role': 'user', 'content': 'Hello'}, "
            f"got {shown(messages)}"
        )
    if not listed:
        raise MessageError("the list of messages is empty")
    return listed


def _message(message: object, where: str) -> tuple[str, list[object], dict[str, str]]:
    """Return the role, the parts and, if one is given, the name of the author."""
    fields = fields_of(message)
    if fields is None:
        raise MessageError(f"{where} has to be an object with 'role' and 'content', got {shown(message)}")
    role = _role(fields, where)
    for field in _TOOLS:
        if not is_absent(fields.get(field)):
            raise MessageError(
                f"{where} has the field {shown(field)}: this model calls no tools, and nothing shows it them"
            )
    refuse_unknown(fields, _WITHOUT_EFFECT, where)
    name = fields.get("name")
    if isinstance(name, str) and name:
        check_text(name, f"{where}: 'name'")
    return role, _content(fields, where), {"name": name} if isinstance(name, str) and name else {}


def _role(fields: Fields, where: str) -> str:
    kind, given = fields.get("type"), fields.get("role")
    if given is None and kind in ROLES:
        given, kind = kind, None
    if not is_absent(kind) and kind != "message":
        raise MessageError(f"{where} is of the type {shown(kind)}, which is not understood; only messages are")
    role = given.value if isinstance(given, Enum) else given
    if isinstance(role, str) and role.lower() in ROLES:
        return ROLES[role.lower()]
    what = "no 'role'" if role is None else f"the role {shown(role)}, which is not understood"
    raise MessageError(f"{where} has {what}; known roles are {', '.join(ROLES)}")


def _content(fields: Fields, where: str) -> list[object]:
    content = fields.get("content")
    if content is None:
        raise MessageError(f"{where} has no content: 'content' is {'None' if 'content' in fields else 'missing'}")
    if isinstance(content, str):
        check_text(content, f"{where}: 'content'")
        return [{"type": "text", "text": content}]
    if isinstance(content, np.ndarray) and content.dtype == object and content.ndim == 1:  # as tables keep lists
        content = list(content)
    if not isinstance(content, (list, tuple)):
        raise MessageError(f"{where}: 'content' has to be a text or a list of parts, got {shown(content)}")
    if not content:
        raise MessageError(f"{where} has no content: 'content' is an empty list")
    return list(content)


def one_message(prompt: str, images: int, videos: int) -> Conversation:
    """Return the conversation that shows pictures, then clips, as many as asked for, and asks `prompt`."""
    media: list[Mapping[str, object]] = [*[{"type": "image"}] * images, *[{"type": "video"}] * videos]
    return [{"role": "user", "content": [*media, {"type": "text", "text": prompt}]}]
