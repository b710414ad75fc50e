"""Chat messages: bringing them into one form, and finding the media in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..quoting import shown

Message = dict[str, Any]
"""One message: `role`, `content` (a text, or a list of items with a `type`), and what else the template reads."""

Conversation = list[Message]

# The keys under which an item may hold its source; what a source is, `media.kinds` says.
_SOURCES = {kind: (kind, "url", "path", "base64") for kind in ("image", "video")}


def normalize(conversation: object) -> tuple[list[Conversation], bool]:
    """Return a list of conversations, and whether the caller gave a list of them.

    Messages are copied, without the keys whose value is None; an `image_url` item becomes an `image` item with a `url`.
    Raises TypeError for what is no list of dicts, ValueError for an empty one.
    """
    if not isinstance(conversation, (list, tuple)):
        raise TypeError(f"a conversation is a list of messages, got {type(conversation).__name__}")
    if not conversation:
        raise ValueError("the conversation is empty")
    batched = isinstance(conversation[0], (list, tuple))
    conversations = list(conversation) if batched else [conversation]
    return [[_message(message) for message in messages] for messages in conversations], batched


def has_video(conversations: Sequence[Conversation]) -> bool:
    """Whether any message holds a video item."""
    return any(
        item["type"] == "video" for messages in conversations for message in messages for item in _items(message)
    )


def media(conversation: Conversation) -> tuple[list[object], list[object]]:
    """Return the sources of the pictures and of the clips of one conversation, in order."""
    found: dict[str, list[object]] = {"image": [], "video": []}
    for message in conversation:
        for item in _items(message):
            kind = item["type"]
            if kind in found:
                found[kind] += [item[key] for key in _SOURCES[kind] if key in item]
    return found["image"], found["video"]


def string_contents(conversations: Sequence[Conversation]) -> list[str]:
    """Return the contents that are text and not a list of items."""
    return [
        message["content"]
        for messages in conversations
        for message in messages
        if isinstance(message.get("content"), str)
    ]


def _message(message: object) -> Message:
    if not isinstance(message, Mapping):
        raise TypeError(f"Chat messages should be dicts, but got {shown(message)}.")
    copy = {key: value for key, value in message.items() if value is not None}
    content = copy.get("content")
    if isinstance(content, (list, tuple)):
        copy["content"] = [_item(item) for item in content]
    return copy


def _item(item: object) -> object:
    if isinstance(item, dict) and item.get("type") == "image_url" and "image_url" in item:
        source = item["image_url"]
        return {"type": "image", "url": source.get("url", "") if isinstance(source, dict) else source}
    return item


def _items(message: Message) -> list[Message]:
    content = message.get("content")
    if not content or isinstance(content, str):
        return []
    for item in content:
        if not isinstance(item, dict) or "type" not in item:
            raise ValueError(f"each item of a message's content is a dict with a 'type', got {shown(item)}")
    return list(content)
