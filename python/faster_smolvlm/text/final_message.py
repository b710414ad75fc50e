"""Ending a prompt in the middle of its last message, for a model that goes on writing it.

The template is rendered with a mark behind the text of that message, and the prompt is cut there.
"""

from __future__ import annotations

from .conversation import Conversation, Message

_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "


def with_reasoning_names(message: Message) -> Message:
    """Offer the reasoning of a message under the two names that templates read."""
    reasoning = next((message[name] for name in _REASONING_FIELDS if message.get(name) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def mark_ending(messages: Conversation, field: bool | str, chat_template: str) -> str:
    """Put a mark behind the text of the last message, and return that text without it.

    `field` is the entry of the message to go on with, True for its content. Raises ValueError if the message has none,
    or if the template does not read it.
    """
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
        block["text"] = text + _MARK
        return text
    for other in names:
        last[other] = f"{last[other]}{_MARK}"
    return str(content)


def cut_at_mark(text: str, ending: str) -> str:
    """Return the rendered text up to the mark; ValueError if the template left out `ending`, the text before it."""
    mark = _MARK.strip()
    if ending.strip() not in text or mark not in text:
        raise ValueError(
            "continue_final_message is set but the final message does not appear in the chat after applying the chat "
            "template: the template leaves out parts of it."
        )
    end = text.rindex(mark)
    kept = text[:end]
    return kept if text.startswith(_MARK, end) else kept.rstrip()
