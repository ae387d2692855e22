"""Alpaca's columns, as LLaMA-Factory has them: instruction, input, and an output or a pair; the format `alpaca`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.data.format_pairs import Columns, Parsed, Values, pair
from prefopt.data.messages import as_response
from prefopt.data.rows import Unusable, as_list, as_text, kind_of, present, text
from prefopt.records import Message


def is_alpaca(seen: Mapping[str, Any]) -> bool:
    """Whether a file with these columns has pairs below an instruction; one with a prompt besides is of TRL's kind."""
    return {"instruction", "chosen", "rejected"} <= seen.keys() and "prompt" not in seen


def read_alpaca(row: Values, columns: Columns) -> Parsed:
    """instruction, perhaps input, system and history, as `alpaca_prompt`; chosen and rejected, a string or one turn."""
    prompt = alpaca_prompt(row)
    chosen, rejected = (as_response(present(row, name), name) for name in ("chosen", "rejected"))
    return Parsed(prompt, pair(chosen, rejected), True)


def alpaca_prompt(row: Values) -> tuple[Message, ...]:
    """instruction, and input on the next line, as a user's turn behind `system` and `history`.

    Either of the two may be empty or absent, and then adds no line. Raises: Unusable where both are absent, or a column
    does not say what it should.
    """
    turns: list[Message] = []
    if row.get("system"):
        turns.append(Message("system", text(row, "system")))
    if row.get("history"):
        for exchange in as_list(row["history"], "history"):
            if not isinstance(exchange, list) or len(exchange) != 2:
                raise Unusable("history is not pairs of question and answer", f"it holds {kind_of(exchange)}")
            turns += [Message(r, as_text(v, "history")) for r, v in zip(("user", "assistant"), exchange)]
    lines = [] if row.get("instruction") is None and row.get("input") else [text(row, "instruction")]
    if row.get("input"):
        lines.append(text(row, "input"))
    turns.append(Message("user", "\n".join(filter(None, lines))))
    return tuple(turns)
