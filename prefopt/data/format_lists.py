"""Formats of scored lists, single judged responses and plain imitation: `ranked`, `labels`, `sft`, `examples`."""

from __future__ import annotations

from typing import Any

from prefopt.data.format_alpaca import alpaca_prompt
from prefopt.data.format_pairs import Columns, Parsed, Values, with_system
from prefopt.data.messages import as_messages, as_prompt, as_response, is_conversation, split_answer
from prefopt.data.rows import LABELS, Unusable, as_flag, as_list, as_number, kind_of, label_of, present, text
from prefopt.records import Candidate, Message

RESPONSE_LISTS = ("responses", "candidates", "completions")
RANKS = ("rank", "ranks")
RESPONSES = ("completion", "response")
CONVERSATIONS = ("messages", "conversations")


def _first(columns: Columns, names: tuple[str, ...]) -> str:
    """The first of `names` that the file has; the last where it has none, so that the row is found to lack it."""
    return next((name for name in names if name in columns), names[-1])


def read_ranked(row: Values, columns: Columns) -> Parsed:
    """prompt, a list of responses, and as long a list of scores (higher is better) or of ranks (0 is best)."""
    prompt, is_chat = as_prompt(present(row, "prompt"), "prompt")
    name = _first(columns, RESPONSE_LISTS)
    values = as_list(present(row, name), name)
    responses = [as_response(value, name) for value in values]
    judged = "scores" if "scores" in columns else _first(columns, RANKS)
    sign = 1.0 if judged == "scores" else -1.0
    scores = [sign * as_number(value, judged) for value in as_list(present(row, judged), judged)]
    if len(scores) != len(responses):
        raise Unusable(f"{name} and {judged} differ in length", f"{len(responses)} and {len(scores)}")
    if not responses:
        raise Unusable(f"{name} is empty", "no responses")
    return Parsed(
        prompt, tuple(Candidate(r, score=s) for r, s in zip(responses, scores)), is_chat or is_conversation(values[0])
    )


def read_labels(row: Values, columns: Columns) -> Parsed:
    """One response, as `read_sft`, and whether it is desirable: label, or LLaMA-Factory's kto_tag.

    There is no label where `columns` lack it: the file's, or those that are to be read of this row.
    """
    label = None
    if found := [name for name in LABELS if name in columns]:
        label = as_flag(present(row, found[0]) if label_of(row) is None else label_of(row), found[0])
    prompt, response, is_chat = _prompt_and_response(row, columns)
    return Parsed(prompt, (Candidate(response, label=label),), is_chat)


def read_sft(row: Values, columns: Columns) -> Parsed:
    """One response to imitate: prompt and completion or response; instruction, input and output; or messages.

    Alpaca's instruction (and input, on the next line) is a user's turn of a conversation, with `system` and
    `history` [[question, answer], ...] before it where the file has them.
    """
    prompt, response, is_chat = _prompt_and_response(row, columns)
    return Parsed(prompt, (Candidate(response),), is_chat)


def _prompt_and_response(row: Values, columns: Columns) -> tuple[tuple[Message, ...], str, bool]:
    if {"instruction", "output"} <= columns:
        return alpaca_prompt(row), text(row, "output"), True
    if "prompt" in columns and not columns.isdisjoint(RESPONSES):
        prompt, is_chat = as_prompt(present(row, "prompt"), "prompt")
        name = _first(columns, RESPONSES)
        response = present(row, name)
        return prompt, as_response(response, name), is_chat or is_conversation(response)
    name = _first(columns, CONVERSATIONS)
    turns, response = split_answer(with_system(row, as_messages(present(row, name), name)), name)
    if not turns:
        raise Unusable("missing prompt", f"{name} hold nothing but the answer")
    return turns, response, True


def read_examples(row: Values, columns: Columns) -> Parsed:
    """Our own records, as `records.write_jsonl` writes them."""
    candidates = tuple(_candidate(value) for value in as_list(present(row, "candidates"), "candidates"))
    if not candidates:
        raise Unusable("candidates is empty", "no responses")
    prompt = as_messages(present(row, "prompt"), "prompt")
    is_chat = as_flag(row.get("is_chat", True), "is_chat")
    if not is_chat and len(prompt) > 1:
        raise Unusable("plain prompt has several messages", f"{len(prompt)} with is_chat false")
    return Parsed(prompt, candidates, is_chat)


def _candidate(value: Any) -> Candidate:
    if not isinstance(value, dict):
        raise Unusable("candidate is not an object", f"it is {kind_of(value)}")
    score, label, margins = (value.get(key) for key in ("score", "label", "margins"))
    return Candidate(
        text(value, "text"),
        score=None if score is None else as_number(score, "score"),
        label=None if label is None else as_flag(label, "label"),
        margins=None if margins is None else tuple(as_number(m, "margins") for m in as_list(margins, "margins")),
    )
