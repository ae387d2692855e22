"""Conversations: roles by their many names, contents in their many shapes, the answer at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.data.rows import Unusable, as_text, kind_of
from prefopt.records import Message

_ROLES = {
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "ai"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "observation", "ipython"),
}
_ROLE_OF = {synonym: role for role, synonyms in _ROLES.items() for synonym in synonyms}

# Fields that carry meaning which a `Message` cannot: dropping them would train on another conversation.
_UNREPRESENTED = ("tool_calls", "function_call", "reasoning_content", "thinking", "images")


def is_conversation(value: Any) -> bool:
    """Whether `value` looks like one message or a list of them; its parts may still be unusable."""
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def may_be_prompt(value: Any) -> bool:
    """Whether `value` looks like a conversation whose last turn is not an answer."""
    if not is_conversation(value):
        return False
    last = value if isinstance(value, Mapping) else value[-1]
    role = last.get("role", last.get("from")) if isinstance(last, Mapping) else None
    return isinstance(role, str) and _ROLE_OF.get(role.strip().lower()) not in (None, "assistant")


def as_messages(value: Any, column: str) -> tuple[Message, ...]:
    """One message or a list of them, written {role, content} or {from, value}.

    Raises: Unusable for anything else, an unknown role, or a message that holds more than text.
    """
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list):
        raise Unusable(f"{column} is neither text nor messages", f"it is {kind_of(value)}")
    if not turns:
        raise Unusable(f"{column} is empty", "no messages")
    return tuple(_as_message(turn, f"{column}[{place}]", column) for place, turn in enumerate(turns))


def _as_message(turn: Any, place: str, column: str) -> Message:
    if not isinstance(turn, Mapping):
        raise Unusable(f"{column} is not messages", f"{place} is {kind_of(turn)}")
    role_key, content_key = ("role", "content") if "role" in turn else ("from", "value")
    role = turn.get(role_key)
    if not isinstance(role, str):
        raise Unusable("message without a role", f"{place}: {role_key} is {kind_of(role)}")
    known = _ROLE_OF.get(role.strip().lower())
    if known is None:
        raise Unusable("unknown role", f"{place}: {role[:40]!r}")
    for key in _UNREPRESENTED:
        if turn.get(key):
            raise Unusable("message holds more than text", f"{place} has {key}")
    return Message(known, _as_content(turn.get(content_key), f"{place}.{content_key}"))


def _as_content(value: Any, place: str) -> str:
    """A string, or a list of parts, strings or {type: text, text | value: ...}, which are joined."""
    if not isinstance(value, list):
        if not isinstance(value, str):
            raise Unusable("message content is not a string", f"{place} is {kind_of(value)}")
        return as_text(value, "message content")
    parts = []
    for part in value:
        if isinstance(part, str):
            parts.append(as_text(part, "message part"))
            continue
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = f"a part of type {part.get('type')!r}"[:60] if isinstance(part, Mapping) else kind_of(part)
            raise Unusable("message part is not text", f"{place} has {kind}")
        parts.append(as_text(part["text"] if "text" in part else part.get("value"), "message part"))
    return "".join(parts)


def as_prompt(value: Any, column: str) -> tuple[tuple[Message, ...], bool]:
    """A prompt that is a string or a conversation: its messages, and whether it is a conversation. Raises: Unusable."""
    if isinstance(value, str):
        return (Message("user", as_text(value, column)),), False
    return as_messages(value, column), True


def as_response(value: Any, column: str) -> str:
    """A response that is a string, or a conversation of a single answer. Raises: Unusable."""
    if isinstance(value, str):
        return as_text(value, column)
    messages = as_messages(value, column)
    if len(messages) > 1:
        raise Unusable(f"{column} has several messages", f"{len(messages)} where one answer was expected")
    return split_answer(messages, column)[1]


def split_answer(messages: tuple[Message, ...], column: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the last, and the last, which has to be the assistant's. Raises: Unusable."""
    if messages[-1].role != "assistant":
        raise Unusable(f"{column} does not end with an answer", f"its last turn is the {messages[-1].role}'s")
    return messages[:-1], messages[-1].content
