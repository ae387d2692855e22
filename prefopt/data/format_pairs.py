"""Formats of pairs: `trl`, `hh`, `sharegpt`, `swift`. A reader takes a row and its file's columns; gives `Parsed`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from prefopt.data.messages import as_messages, as_prompt, as_response, is_conversation, split_answer
from prefopt.data.rows import Unusable, as_number, as_text, kind_of, present, text
from prefopt.records import Candidate, Message

Columns = frozenset[str]
Values = Mapping[str, Any]


class Parsed(NamedTuple):
    """What a row says: `Example` without the id, which the row's place gives."""

    prompt: tuple[Message, ...]
    candidates: tuple[Candidate, ...]
    is_chat: bool


def pair(chosen: str, rejected: str, scores: tuple[float, float] = (1.0, 0.0)) -> tuple[Candidate, Candidate]:
    """The chosen response and the rejected one, with their scores."""
    return Candidate(chosen, score=scores[0]), Candidate(rejected, score=scores[1])


def read_trl(row: Values, columns: Columns) -> Parsed:
    """chosen and rejected, with or without prompt; each a string or a conversation.

    Without a prompt, conversations share all but their last turn. Two plain strings share their longest common
    beginning, cut back to the end of its last whole word, so that the white space before the responses belongs to them:
    "Q: sky? A: blue" and "Q: sky? A: black" have the prompt "Q: sky? A:".
    Conversations may repeat the prompt in front (then it is not added again). Scores that contradict the names
    chosen and rejected make the row unusable; equal scores leave it without a pair.
    """
    messages = "chosen_messages" in columns
    names = ("chosen_messages", "rejected_messages") if messages else ("chosen", "rejected")
    chosen, rejected = (present(row, name) for name in names)
    scores = _scores(row, columns)
    if is_conversation(chosen) and is_conversation(rejected):
        return _conversations(row, columns, names, chosen, rejected, scores)
    for name, value in zip(names, (chosen, rejected)):
        if not isinstance(value, str):
            raise Unusable(f"{name} is not a string", f"it is {kind_of(value)}")
        as_text(value, name)
    if "prompt" in columns or row.get("prompt") is not None:
        prompt, is_chat = as_prompt(present(row, "prompt"), "prompt")
        return Parsed(prompt, pair(chosen, rejected, scores), is_chat)
    shared = _shared_beginning(chosen, rejected)
    return Parsed((Message("user", shared),), pair(chosen[len(shared) :], rejected[len(shared) :], scores), False)


def _conversations(
    row: Values, columns: Columns, names: tuple[str, str], chosen: Any, rejected: Any, scores: tuple[float, float]
) -> Parsed:
    front: tuple[Message, ...] = ()
    if "prompt" in columns or row.get("prompt") is not None:
        front, _ = as_prompt(present(row, "prompt"), "prompt")
    dialogues = [as_messages(value, name) for name, value in zip(names, (chosen, rejected))]
    # Many files give the prompt apart and again as the first turns of both conversations.
    if any(dialogue[0].role != "assistant" for dialogue in dialogues):
        shown = [message.content for message in front]
        if not all(_repeats(dialogue, shown) for dialogue in dialogues):
            raise Unusable("prompt is not in the dialogues", "they begin with other turns than prompt")
        front = ()
    before, answers = zip(*(split_answer(front + d, name) for name, d in zip(names, dialogues)))
    if before[0] != before[1]:
        raise Unusable("dialogues differ before the last answer", f"{len(before[0])} and {len(before[1])} turns")
    if not before[0]:
        beside = ", and messages ends with an answer too" if row.get("messages") else ""
        raise Unusable("missing prompt", f"the conversations hold nothing but the answers{beside}")
    return Parsed(before[0], pair(answers[0], answers[1], scores), True)


def _repeats(dialogue: tuple[Message, ...], prompt: list[str]) -> bool:
    """Whether a dialogue holds the prompt's turns one after the other, perhaps behind a system turn."""
    said = [message.content for message in dialogue]
    return any(said[start : start + len(prompt)] == prompt for start in (0, 1))


def _scores(row: Values, columns: Columns) -> tuple[float, float]:
    if not {"score_chosen", "score_rejected"} <= columns:
        return 1.0, 0.0
    chosen, rejected = (as_number(present(row, name), name) for name in ("score_chosen", "score_rejected"))
    if chosen < rejected:
        raise Unusable("scores contradict chosen and rejected", f"{chosen:g} for chosen, {rejected:g} for rejected")
    return chosen, rejected


def _shared_beginning(chosen: str, rejected: str) -> str:
    if chosen == rejected:
        raise Unusable("chosen equals rejected", "and there is no prompt column")
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    common = chosen[:same]
    at_word_end = all(whole[same : same + 1].isspace() for whole in (chosen, rejected))
    shared = common if at_word_end else re.sub(r"\S*$", "", common)
    shared = shared.rstrip()
    if not shared:
        raise Unusable("no common prompt", "chosen and rejected share no first word, and there is no prompt column")
    return shared


_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLE = {"Human": "user", "Assistant": "assistant"}


def read_hh(row: Values, columns: Columns) -> Parsed:
    """Whole dialogues as one string each, turns beginning "\\n\\nHuman:" or "\\n\\nAssistant:" (Anthropic HH).

    The space after the colon is the format's, not the turn's; the template `hh` writes it again.
    """
    before, answers = zip(*(_split_dialogue(text(row, name), name) for name in ("chosen", "rejected")))
    if before[0] != before[1]:
        raise Unusable("dialogues differ before the last answer", f"{len(before[0])} and {len(before[1])} characters")
    pieces = _TURN.split(before[0])
    turns = tuple(Message(_HH_ROLE[who], said.removeprefix(" ")) for who, said in zip(pieces[1::2], pieces[2::2]))
    return Parsed(turns, pair(*answers), True)


def _split_dialogue(dialogue: str, column: str) -> tuple[str, str]:
    """Everything before the last answer, and the answer."""
    if not dialogue.startswith("\n\nHuman:"):
        raise Unusable(f"{column} does not begin with a Human turn", repr(dialogue[:40]))
    *_, last = _TURN.finditer(dialogue)
    if last[1] != "Assistant":
        raise Unusable(f"{column} does not end with an answer", "its last turn is Human's")
    return dialogue[: last.start()], dialogue[last.end() :].removeprefix(" ")


def read_sharegpt(row: Values, columns: Columns) -> Parsed:
    """conversations or messages that end with a question; chosen and rejected as one turn each or as plain strings."""
    name = "conversations" if "conversations" in columns else "messages"
    prompt = with_system(row, as_messages(present(row, name), name))
    if prompt[-1].role == "assistant":
        raise Unusable(f"{name} is no prompt", "its last turn is the assistant's")
    chosen, rejected = (as_response(present(row, name), name) for name in ("chosen", "rejected"))
    return Parsed(prompt, pair(chosen, rejected), True)


def read_swift(row: Values, columns: Columns) -> Parsed:
    """messages that end with the chosen answer, and rejected_response, the other one (ms-swift)."""
    turns, chosen = split_answer(with_system(row, as_messages(present(row, "messages"), "messages")), "messages")
    if not turns:
        raise Unusable("missing prompt", "messages hold nothing but the answer")
    rejected = as_response(present(row, "rejected_response"), "rejected_response")
    return Parsed(turns, pair(chosen, rejected), True)


def with_system(row: Values, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """A conversation behind the column `system`, where there is one and it has no system turn of its own."""
    if not row.get("system") or turns[0].role == "system":
        return turns
    return (Message("system", text(row, "system")), *turns)
