"""Files of answers to question sets, those of prefopt and those that evaluators read, as one record.

| file | told by the keys of its first row |
|---|---|
| answers.jsonl of `measure=answers` | id, prompt, response, generator |
| AlpacaEval's model_outputs.json | instruction, output |
| Arena-Hard's model_answer/NAME.jsonl, data v0.1 and v2.0 | uid, messages |
| MT-Bench's model_answer/NAME.jsonl, and Arena-Hard's before it had uid | question_id, choices |

Each may be gzipped. Lines end at "\\n" only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefopt.data.files import READERS, reader_of
from prefopt.data.rows import Unusable, as_flag, as_list, kind_of, present, text
from prefopt.errors import UserError

ANSWERS = "answers.jsonl"
"""The file of a folder of `measure=answers`: every answer, a line each."""


@dataclass(frozen=True)
class Answer:
    """One answer to one question.

    id: of the question: Arena-Hard's uid, MT-Bench's question_id as text, for AlpacaEval and own prompts `id_of` the
        prompt, so that files of several models can be joined by it.
    prompt: what was asked in this turn; a conversation is one text with the role before each turn. Empty where the file
        does not have it (MT-Bench).
    response: the answer; may be empty. generator: the model's name in the file, or the file's own name.
    category: of the question; AlpacaEval's `dataset`. Empty where there is none.
    turn: from 1; MT-Bench asks a second time, about the first answer. (id, turn) is unique in a file.
    tokens: of the response, by the vocabulary of its model, without the one that ended it; None where it is not known.
    stopped: whether the model ended the answer, and not the limit; None where it is not known.
    is_chat: whether the prompt is a user's turn, or text that the response continues.
    """

    id: str
    prompt: str
    response: str
    generator: str
    category: str = ""
    turn: int = 1
    tokens: int | None = None
    stopped: bool | None = None
    is_chat: bool = True


def id_of(prompt: str) -> str:
    """16 hex digits of the prompt's words: what an answer is known by where its question has no id of its own."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def answer_line(answer: Answer) -> str:
    """A line of answers.jsonl, its end included."""
    return json.dumps(asdict(answer), ensure_ascii=False) + "\n"


def read_answers(path: str | Path) -> list[Answer]:
    """The answers of a file, in its order; of MT-Bench's rows turn after turn.

    Raises: UserError for a file that is not there, is of none of these kinds or is empty, for a row that is not what it
        should be, and for a second answer to the same question, by file and line; RunError where it cannot be read.
    """
    path = Path(path)
    if path.is_dir() and (path / ANSWERS).is_file():
        raise UserError(f"{path} is a folder, not a file of answers", f"did you mean {path / ANSWERS}?")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of answers", f"working directory: {Path.cwd()}")
    reader = reader_of(path, {name: read for name, read in READERS.items() if ".json" in name})
    if reader is None:
        raise UserError(f"{path}: answers are read from .json and .jsonl, gzipped or not", "rename or convert it")
    name = path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    read: _Read | None = None
    found: list[Answer] = []
    seen: dict[tuple[str, int], str] = {}
    for row in reader(path, str(path)):
        read = read or _reader(row.value, path)
        try:
            answers = read(row.value, name)
        except Unusable as why:
            raise UserError(f"{row.id}: {why.reason} ({why.detail})", "repair or delete that row") from None
        for answer in answers:
            place = answer.id, answer.turn
            if place in seen:
                raise UserError(
                    f"{row.id}: a second answer to question {answer.id}; the first is at {seen[place]}",
                    "one answer for each question: delete the other",
                )
            seen[place] = row.id
            found.append(answer)
    if not found:
        raise UserError(f"{path}: no answers in it")
    return found


_Read = Callable[[Mapping[str, Any], str], Iterable[Answer]]
"""Of a row, and the name of its file, which stands for a generator that the row does not name."""


def _reader(first: Mapping[str, Any], path: Path) -> _Read:
    for keys, read in _READERS.items():
        if all(key in first for key in keys):
            return read
    raise UserError(
        f"{path}: not a file of answers: its first row has {', '.join(sorted(first)[:10]) or 'no keys'}",
        "answers have one of these: " + "; ".join(", ".join(keys) for keys in _READERS),
    )


def _ours(row: Mapping[str, Any], name: str) -> list[Answer]:
    count = row.get("tokens")
    return [
        Answer(
            text(row, "id"),
            text(row, "prompt"),
            text(row, "response"),
            _said(row, "generator", name),
            _said(row, "category", ""),
            _whole(row.get("turn", 1), "turn"),
            None if count is None else _whole(count, "tokens"),
            None if row.get("stopped") is None else as_flag(row["stopped"], "stopped"),
            row.get("is_chat") is None or as_flag(row["is_chat"], "is_chat"),
        )
    ]


def _alpaca_eval(row: Mapping[str, Any], name: str) -> list[Answer]:
    asked = text(row, "instruction")
    generator, category = _said(row, "generator", name), _said(row, "dataset", "")
    return [Answer(id_of(asked), asked, text(row, "output"), generator, category)]


def _arena_hard(row: Mapping[str, Any], name: str) -> list[Answer]:
    turns = as_list(row["messages"], "messages")
    roles = [turn.get("role") if isinstance(turn, Mapping) else None for turn in turns]
    if roles[-1:] != ["assistant"] or "user" not in roles:
        raise Unusable("messages do not end with an answer", f"their roles are {roles}")
    asked = [(str(role).capitalize(), text(turn, "content")) for role, turn in zip(roles[:-1], turns)]
    prompt = asked[0][1] if len(asked) == 1 else "\n\n".join(f"{role}: {words}" for role, words in asked)
    return [Answer(text(row, "uid"), prompt, _content(turns[-1]), _said(row, "model", name))]


def _mt_bench(row: Mapping[str, Any], name: str) -> list[Answer]:
    choices = as_list(row["choices"], "choices")
    if len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise Unusable("choices must be one object", f"there are {len(choices)}: keep one answer for each question")
    number = row["question_id"]
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise Unusable("question_id is neither a number nor a string", f"it is {kind_of(number)}")
    turns = as_list(present(choices[0], "turns"), "turns")
    generator = _said(row, "model_id", name)
    return [
        Answer(str(number), "", _content({"content": turn}), generator, turn=place)
        for place, turn in enumerate(turns, 1)
    ]


_READERS: dict[tuple[str, ...], _Read] = {
    ("id", "prompt", "response"): _ours,
    ("instruction", "output"): _alpaca_eval,
    ("uid", "messages"): _arena_hard,
    ("question_id", "choices"): _mt_bench,
}


def _content(turn: Mapping[str, Any]) -> str:
    """An answer's text: as it is, or under `answer` (Arena-Hard), or under `content` (Arena-Hard before it had uid)."""
    content = present(turn, "content")
    if isinstance(content, Mapping):
        return text(content, "answer" if "answer" in content else "content")
    return text(turn, "content")


def _said(row: Mapping[str, Any], key: str, otherwise: str) -> str:
    return otherwise if row.get(key) is None else text(row, key)


def _whole(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Unusable(f"{key} is not a whole number", f"it is {str(value)[:40]}")
    return value
