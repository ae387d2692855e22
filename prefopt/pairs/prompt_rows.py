"""Rows of which the prompts are wanted: any format that `prefopt train` reads, or prompts alone.

| columns | prompt |
|---|---|
| of a format of `prefopt/data/formats.py` | as training reads it; its responses are given candidates |
| prompt | text, or messages |
| instruction, perhaps input, system, history | a user's turn of a conversation |
| messages or conversations | all turns; but the last, where it is the assistant's: that is a given candidate |
| question | a user's turn |
| turns | the first is a user's turn; the others ask on, about an answer that is not there |

A row of JSON may be a string alone, which is the column prompt. A column `y_ref` is the response to imitate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from prefopt.data.extras import target_of
from prefopt.data.files import PROMPT_READERS, reader_of
from prefopt.data.format_alpaca import alpaca_prompt
from prefopt.data.format_lists import CONVERSATIONS, RESPONSES
from prefopt.data.formats import FORMATS, columns_of, fitting
from prefopt.data.load import limited, open_source
from prefopt.data.messages import as_messages, as_prompt, split_answer
from prefopt.data.recognised import SCORES, Recognised
from prefopt.data.rows import Row, Unusable, as_list, as_text, kind_of, present, text
from prefopt.errors import UserError
from prefopt.pairs.stages import GIVEN
from prefopt.records import Candidate, Example, Message
from prefopt.settings import SourceSettings

_ROWS_LOOKED_AT = 64  # to see what the columns are, as in training

Read = Callable[[Row], Example]


@dataclass(frozen=True)
class PromptRows:
    """An opened file. label: its rows' name. read: a row to an Example, perhaps without candidates; raises Unusable.

    prompt_only: the same for a row of which only the prompt matters: a response that is missing is no harm.
    """

    label: str
    rows: Iterator[Row]
    read: Read
    prompt_only: Read


def open_prompt_rows(source: SourceSettings) -> PromptRows:
    """The rows of a source and how they are read, which its first rows decide.

    Raises: UserError for a file that cannot be read, is empty, or has no column of prompts; RunError where a hub data
    set cannot be had. Broken lines raise while rows are read.
    """
    _check_ending(source.path)
    opened = open_source(source, readers=PROMPT_READERS)
    rows = limited(opened, source.limit)
    first = list(islice(rows, _ROWS_LOOKED_AT))
    if not first:
        raise UserError(f"{source.path}: no rows in it")
    seen = columns_of(first)
    column = next((name for name in _COLUMNS if seen.get(name) is not None), None)
    plain = None if column is None else _plain(column)
    known = fitting(first)
    if known is not None and (plain is None or not _is_open_conversation(known)):
        return PromptRows(opened.label, chain(first, rows), _known(known), _either(_known(known), plain))
    if plain is None:
        columns = ", ".join([name[:40] for name in seen][:40]) or "none"
        raise UserError(
            f"{source.path}: none of its columns ({columns}) holds prompts",
            f"name the column one of {', '.join(_COLUMNS)}, or use a format that training reads",
        )
    return PromptRows(opened.label, chain(first, rows), plain, plain)


def _check_ending(path: str) -> None:
    """Raises: UserError for a file of another kind, such as a list of prompts in a text file."""
    named = Path(path)
    if named.is_file() and reader_of(named, PROMPT_READERS) is None:
        endings = ", ".join(PROMPT_READERS)
        raise UserError(
            f"{path}: no reader for this kind of file",
            f'write one JSON object a line, {{"prompt": "..."}}, into a .jsonl file; known endings: {endings}',
        )


def turn_texts(row: Row, read: Read) -> list[str]:
    """What a user asks in a row, turn after turn, those of a column `turns` all. Raises: Unusable."""
    if isinstance(row.value.get("turns"), list):
        return [_turn(turn) for turn in row.value["turns"]]
    return user_turns(read(row))


def user_turns(example: Example) -> list[str]:
    """The user's turns of a prompt; all of it where it is plain text."""
    return [m.content for m in example.prompt if m.role == "user"]


def _is_open_conversation(known: Recognised) -> bool:
    """Whether rows are conversations and nothing else, which here may end with the user's turn."""
    has_response = "instruction" in known.columns or ("prompt" in known.columns and known.columns & set(RESPONSES))
    return known.format is FORMATS["sft"] and not has_response


def _known(known: Recognised) -> Read:
    targets = known.format.extras.get("targets", ())

    def read(row: Row) -> Example:
        has_target = any(row.value.get(column) is not None for columns in targets for column in columns)
        example = known.example(row, SCORES | ({"targets"} if has_target else set()))
        return replace(example, candidates=tuple(_given(candidate) for candidate in example.candidates))

    return read


def _either(read: Read, plain: Read | None) -> Read:
    if plain is None:
        return read

    def first_that_reads(row: Row) -> Example:
        try:
            return read(row)
        except Unusable:
            return plain(row)

    return first_that_reads


def _given(candidate: Candidate) -> Candidate:
    return replace(candidate, source={GIVEN: True})


Found = tuple[tuple[Message, ...], bool, tuple[Candidate, ...]]


def _prompt(row: Mapping[str, Any]) -> Found:
    prompt, is_chat = as_prompt(present(row, "prompt"), "prompt")
    return prompt, is_chat, ()


def _instruction(row: Mapping[str, Any]) -> Found:
    return alpaca_prompt(row), True, ()


def _conversation(column: str) -> Callable[[Mapping[str, Any]], Found]:
    def read(row: Mapping[str, Any]) -> Found:
        turns = as_messages(present(row, column), column)
        if turns[-1].role != "assistant":
            return turns, True, ()
        before, answer = split_answer(turns, column)
        if not before:
            raise Unusable("missing prompt", f"{column} hold nothing but the answer")
        return before, True, (_given(Candidate(answer)),)

    return read


def _question(row: Mapping[str, Any]) -> Found:
    return (Message("user", text(row, "question")),), True, ()


def _turns(row: Mapping[str, Any]) -> Found:
    turns = as_list(present(row, "turns"), "turns")
    if not turns:
        raise Unusable("turns is empty", "no turns")
    return (Message("user", _turn(turns[0])),), True, ()


def _turn(turn: Any) -> str:
    """Text, or {content: text}. Raises: Unusable."""
    if isinstance(turn, Mapping):
        return text(turn, "content")
    if not isinstance(turn, str):
        raise Unusable("turns is not a list of text", f"it holds {kind_of(turn)}")
    return as_text(turn, "turns")


# In the order in which they are tried.
_COLUMNS: dict[str, Callable[[Mapping[str, Any]], Found]] = {
    "prompt": _prompt,
    "instruction": _instruction,
    **{name: _conversation(name) for name in CONVERSATIONS},
    "question": _question,
    "turns": _turns,
}


def _plain(column: str) -> Read:
    def read(row: Row) -> Example:
        prompt, is_chat, candidates = _COLUMNS[column](row.value)
        target = None if row.value.get("y_ref") is None else target_of(row.value, "y_ref")
        return Example(row.id, prompt, candidates, is_chat, target)

    return read
