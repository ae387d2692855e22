"""A prompt as one text, for judges that are no chat model of ours."""

from __future__ import annotations

from prefopt.records import Example


def whole_prompt(example: Example) -> str:
    """All that stands before the response: a single turn as it is, a conversation with the role before each turn."""
    if len(example.prompt) == 1:
        return example.prompt[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in example.prompt)


def last_question(example: Example) -> str | None:
    """The last user turn, or the whole of a plain prompt; None in a conversation in which no user speaks."""
    if not example.is_chat:
        return whole_prompt(example)
    return next((message.content for message in reversed(example.prompt) if message.role == "user"), None)
