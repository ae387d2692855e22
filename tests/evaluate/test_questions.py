"""Question sets: how many there are, by what they are known, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from prefopt.errors import UserError
from prefopt.evaluate.answer_files import id_of
from prefopt.evaluate.questions import PUBLISHED, Questions, read_questions

FILES = {
    "alpaca_eval": "alpaca_eval/outputs/gpt4_1106_preview.json.gz",
    "arena_hard_v0.1": "arena_hard/v0.1_question.jsonl.gz",
    "arena_hard_v2": "arena_hard/v2.0_question.jsonl.gz",
    "mt_bench": "mt_bench/question.jsonl",
}


def of(tmp_path: Path, form: str, *rows: Any, suffix: str = ".jsonl") -> Questions:
    path = tmp_path / f"questions{suffix}"
    text = json.dumps(rows) if ".json" in path.suffixes else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return read_questions(path, form)


@pytest.mark.parametrize("form", FILES)
def test_real_sets_have_the_published_number_of_questions(shared: Path, form: str) -> None:
    found = read_questions(shared / "data" / FILES[form], form)
    assert (len(found.all), found.left_out) == (PUBLISHED[form], {})
    assert {question.num_turns for question in found.all} == {2 if form == "mt_bench" else 1}
    assert all(question.category for question in found.all)


def test_alpaca_eval_is_known_by_its_words_and_arena_hard_by_uid(tmp_path: Path) -> None:
    (one,) = of(tmp_path, "alpaca_eval", {"instruction": "Say.", "dataset": "koala"}, suffix=".json.gz").all
    assert (one.id, one.category, one.text(1)) == (id_of("Say."), "koala", "Say.")
    (two,) = of(tmp_path, "arena_hard_v2", {"uid": "0a", "prompt": "Say.", "category": "hard_prompt"}).all
    assert (two.id, two.category, two.text(1)) == ("0a", "hard_prompt", "Say.")


def test_a_second_turn_is_asked_about_the_first_answer(tmp_path: Path) -> None:
    (one,) = of(tmp_path, "mt_bench", {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}).all
    assert (one.id, one.text(2)) == ("81", "Again.")
    assert [(m.role, m.content) for m in one.asked(["Done."]).prompt] == [
        ("user", "Write."),
        ("assistant", "Done."),
        ("user", "Again."),
    ]


@pytest.mark.parametrize(
    ("form", "rows", "said"),
    [
        ("arena_hard_v2", [{"uid": "a", "prompt": "x"}, {"prompt": "y"}], "questions.jsonl:2: missing uid"),
        ("arena_hard_v2", [{"uid": "a", "prompt": "x"}] * 2, "questions.jsonl:2: question a is there twice, first at"),
        ("mt_bench", [{"question_id": 1.5, "turns": ["x"]}], "question_id is neither a number nor a string"),
        ("mt_bench", [{"question_id": 1, "turns": []}], "turns must be questions (there are 0"),
        ("alpaca_eval", [{"instruction": " "}], "instruction is empty"),
        ("alpaca_eval", [{"instruction": "a", "input": "b"}], "input is not empty"),
        ("mt_bench", [{"uid": "a", "prompt": "x"}], "missing question_id (no such field): not a question of mt_bench"),
        ("prompts", [{"turns": ["a", "b"]}], "measure.format=mt_bench asks turn after turn"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused_by_line(
    tmp_path: Path, form: str, rows: list[Any], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        of(tmp_path, form, *rows)
    assert said in str(raised.value)


def test_own_prompts_that_are_none_are_counted_by_reason(tmp_path: Path) -> None:
    found = of(tmp_path, "prompts", "One?", "Two?", "One?", "  ", {"prompt": "Three?", "category": "maths"})
    assert [question.text(1) for question in found.all] == ["One?", "Two?", "Three?"]
    assert [question.category for question in found.all] == ["", "", "maths"]
    assert found.left_out == {"repeated prompt": 1, "empty prompt": 1}


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no question in it"):
        of(tmp_path, "arena_hard_v2")
    with pytest.raises(UserError, match="there is no such file"):
        read_questions(tmp_path / "nothing.jsonl", "mt_bench")
