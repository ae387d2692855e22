"""Question sets of evaluators, and prompts of one's own: what `measure=answers` asks.

| format | a row | id | published |
|---|---|---|---|
| alpaca_eval | instruction, dataset (its model_outputs.json serve too) | of the words | 805 |
| arena_hard_v0.1 | uid, prompt, category | uid | 500 |
| arena_hard_v2 | uid, prompt, category | uid | 750 |
| mt_bench | question_id, turns, category | question_id | 80 |
| prompts | any that `prefopt/pairs/prompt_rows.py` reads; perhaps category | of the words | |

Files of the first four are JSON or JSON Lines, gzipped or not. Nothing heavy is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from prefopt.data.files import READERS, reader_of
from prefopt.data.rows import Row, Unusable, as_list, as_text, kind_of, present, text
from prefopt.errors import UserError
from prefopt.evaluate.answer_files import id_of
from prefopt.pairs.prompt_rows import open_prompt_rows
from prefopt.pairs.prompt_text import whole_prompt
from prefopt.records import Example, Message
from prefopt.settings import SourceSettings

PUBLISHED = {"alpaca_eval": 805, "arena_hard_v0.1": 500, "arena_hard_v2": 750, "mt_bench": 80}
"""Questions of each whole set."""


@dataclass(frozen=True)
class Question:
    """What is asked. prompt: the first turn, without candidates. more: the user's further turns, each asked about the
    answers before it. id: as of `Answer`. category: empty where there is none."""

    id: str
    prompt: Example
    more: tuple[str, ...] = ()
    category: str = ""

    @property
    def num_turns(self) -> int:
        """How often it is asked."""
        return 1 + len(self.more)

    def text(self, turn: int) -> str:
        """What is asked in a turn, from 1; a conversation as one text."""
        return whole_prompt(self.prompt) if turn == 1 else self.more[turn - 2]

    def asked(self, said: Sequence[str]) -> Example:
        """The conversation after the answers `said`, one for each turn before."""
        turns = [
            message
            for answer, following in zip(said, self.more)
            for message in (Message("assistant", answer), Message("user", following))
        ]
        return replace(self.prompt, prompt=(*self.prompt.prompt, *turns))


@dataclass(frozen=True)
class Questions:
    """The questions of a file, in order. left_out: rows of own prompts that are none, by reason."""

    all: tuple[Question, ...]
    left_out: Mapping[str, int]

    @property
    def digest(self) -> str:
        """A hash of all that is asked."""
        words = json.dumps([asdict(question) for question in self.all], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()


def read_questions(path: Path, form: str) -> Questions:
    """The questions of a file. form: a name of the table above.

    Raises: UserError for a file that cannot be read or has no question, a row without what its format asks for, and an
        id that comes twice, by file and line; RunError where the system refuses to read.
    """
    if not path.is_file():
        raise UserError(f"measure.questions: {path}: there is no such file", f"working directory: {Path.cwd()}")
    found = _own(path) if form == "prompts" else _of_evaluator(path, form)
    if not found.all:
        raise UserError(f"{path}: no question in it", "look at the file")
    return found


def _of_evaluator(path: Path, form: str) -> Questions:
    reader = reader_of(path, {name: read for name, read in READERS.items() if ".json" in name})
    if reader is None:
        raise UserError(
            f"{path}: questions of {form} are read from .json and .jsonl, gzipped or not", "rename or convert it"
        )
    seen: dict[str, int] = {}
    questions = []
    for row in reader(path, str(path)):
        try:
            question = _ROWS[form](row)
        except Unusable as why:
            raise UserError(
                f"{row.id}: {why.reason} ({why.detail}): not a question of {form}",
                "measure.format says whose questions they are; repair that row where it is right",
            ) from None
        if question.id in seen:
            raise UserError(
                f"{row.id}: question {question.id} is there twice, first at {path}:{seen[question.id]}",
                "delete one of the two: answers are known by it",
            )
        seen[question.id] = row.number
        questions.append(question)
    return Questions(tuple(questions), {})


def _own(path: Path) -> Questions:
    opened = open_prompt_rows(SourceSettings(path=str(path)))
    questions: dict[str, Question] = {}
    left_out: Counter[str] = Counter()
    for row in opened.rows:
        try:
            example = replace(opened.prompt_only(row), candidates=(), target=None)
        except Unusable as why:
            left_out[why.reason] += 1
            continue
        words = whole_prompt(example)
        if not words.strip():
            left_out["empty prompt"] += 1
        elif id_of(words) in questions:
            left_out["repeated prompt"] += 1
        else:
            category = row.value.get("category")
            more = row.value.get("turns") if isinstance(row.value.get("turns"), list) else None
            if more is not None and len(more) > 1:
                raise UserError(f"{row.id}: a prompt of several turns", "measure.format=mt_bench asks turn after turn")
            questions[id_of(words)] = Question(
                id_of(words), example, category=category if isinstance(category, str) else ""
            )
    return Questions(tuple(questions.values()), left_out)


def _alpaca_eval(row: Row) -> Question:
    if row.value.get("input"):
        raise Unusable("input is not empty", "AlpacaEval has all of a question in instruction")
    words = _words(row.value, "instruction")
    return Question(id_of(words), _user(row, words), category=_category(row, "dataset"))


def _arena_hard(row: Row) -> Question:
    return Question(
        text(row.value, "uid"), _user(row, _words(row.value, "prompt")), category=_category(row, "category")
    )


def _mt_bench(row: Row) -> Question:
    number = present(row.value, "question_id")
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise Unusable("question_id is neither a number nor a string", f"it is {kind_of(number)}")
    turns = [as_text(turn, "turns") for turn in as_list(present(row.value, "turns"), "turns")]
    if not turns or not all(turn.strip() for turn in turns):
        raise Unusable("turns must be questions", f"there are {len(turns)}, or one is empty")
    return Question(str(number), _user(row, turns[0]), tuple(turns[1:]), _category(row, "category"))


_ROWS: dict[str, Callable[[Row], Question]] = {
    "alpaca_eval": _alpaca_eval,
    "arena_hard_v0.1": _arena_hard,
    "arena_hard_v2": _arena_hard,
    "mt_bench": _mt_bench,
}


def _user(row: Row, words: str) -> Example:
    return Example(row.id, (Message("user", words),), ())


def _words(row: Mapping[str, Any], column: str) -> str:
    words = text(row, column)
    if not words.strip():
        raise Unusable(f"{column} is empty", "nothing is asked")
    return words


def _category(row: Row, column: str) -> str:
    return "" if row.value.get(column) is None else text(row.value, column)
