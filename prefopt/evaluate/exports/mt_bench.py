"""MT-Bench's `data/mt_bench/model_answer/MODEL.jsonl` (Zheng et al. 2023, arXiv 2306.05685), as FastChat reads it.

A row for each question: `question_id`, `answer_id`, `model_id`, `choices` (one, with the answers of all turns) and
`tstamp`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from prefopt import durable
from prefopt.evaluate.answer_files import Answer
from prefopt.evaluate.exports.answer_ids import answer_id


def write(folder: Path, answers: Sequence[Answer], begun: float) -> Path:
    """The file under `folder`; questions in the order of the answers, turns in theirs.

    answers: of every question all turns. begun: seconds since 1970, `tstamp` of every row.

    Raises: OSError where it cannot be written.
    """
    turns: dict[str, list[Answer]] = {}
    for answer in answers:
        turns.setdefault(answer.id, []).append(answer)
    rows = []
    for question, said in turns.items():
        texts = [answer.response for answer in sorted(said, key=lambda answer: answer.turn)]
        rows.append(
            {
                "question_id": _number(question),
                "answer_id": answer_id(said[0].generator, question, texts),
                "model_id": said[0].generator,
                "choices": [{"index": 0, "turns": texts}],
                "tstamp": begun,
            }
        )
    path = folder / "mt_bench" / "model_answer" / f"{answers[0].generator}.jsonl"
    durable.make_folder(path.parent)
    durable.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def _number(question: str) -> int | str:
    """FastChat's ids are numbers; others stay what they are."""
    return int(question) if question.isdecimal() and str(int(question)) == question else question
