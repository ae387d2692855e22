"""Answer files of prefopt and of three evaluators: read as one record, or refused by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from prefopt.errors import UserError
from prefopt.evaluate.answer_files import Answer, answer_line, id_of, read_answers

ALPACA = {"dataset": "koala", "instruction": "Say one.", "output": "One.", "generator": "m"}
ARENA = {
    "uid": "0a",
    "ans_id": "x",
    "model": "m",
    "messages": [{"role": "user", "content": "Say one."}, {"role": "assistant", "content": {"answer": "One."}}],
    "tstamp": 1.5,
}
MT_BENCH = {
    "question_id": 81,
    "answer_id": "x",
    "model_id": "m",
    "choices": [{"index": 0, "turns": ["One.", "Two."]}],
    "tstamp": 1.5,
}


def written(path: Path, *rows: Any) -> Path:
    text = json.dumps(rows) if ".json" in path.suffixes else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read_answers(path)
    return str(raised.value)


def test_own_lines_come_back_with_their_line_separators(tmp_path: Path) -> None:
    answers = [
        Answer("a", "Why?", "one\u2028two\u0085three\n\nfour", "m", "maths", 1, 12, True),
        Answer("a", "And then?", "", "m", "maths", 2, 0, False),
        Answer("b", "Wer?", "ich", "m", is_chat=False),
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(map(answer_line, answers)), encoding="utf-8")
    assert read_answers(file) == answers


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_alpaca_eval_rows_are_known_by_the_words_of_their_instruction(tmp_path: Path, suffix: str) -> None:
    (answer,) = read_answers(written(tmp_path / f"model_outputs{suffix}", ALPACA))
    assert answer == Answer(id_of("Say one."), "Say one.", "One.", "m", "koala")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_arena_hard_rows_have_their_answer_under_its_key(tmp_path: Path, suffix: str) -> None:
    assert read_answers(written(tmp_path / f"m{suffix}", ARENA)) == [Answer("0a", "Say one.", "One.", "m")]


def test_mt_bench_rows_give_an_answer_for_each_turn(tmp_path: Path) -> None:
    one, two = read_answers(written(tmp_path / "m.jsonl", MT_BENCH))
    assert (one.id, one.turn, one.response) == ("81", 1, "One.")
    assert (two.id, two.turn, two.response) == ("81", 2, "Two.")


def test_arena_hard_rows_of_the_older_layout_are_read(tmp_path: Path) -> None:
    old = {**MT_BENCH, "question_id": "0a", "choices": [{"index": 0, "turns": [{"content": "One.", "token_len": 2}]}]}
    assert read_answers(written(tmp_path / "m.jsonl", old)) == [Answer("0a", "", "One.", "m")]


def test_a_row_without_generator_has_the_name_of_its_file(tmp_path: Path) -> None:
    row = {key: value for key, value in ALPACA.items() if key != "generator"}
    assert read_answers(written(tmp_path / "mine.json.gz", row))[0].generator == "mine"


def test_an_empty_answer_is_an_answer(tmp_path: Path) -> None:
    assert read_answers(written(tmp_path / "m.json", {**ALPACA, "output": ""}))[0].response == ""


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({**ARENA, "uid": "0b", "messages": ARENA["messages"][:1]}, "m.jsonl:2: messages do not end with an answer"),
        ({**ARENA, "uid": None}, "m.jsonl:2: missing uid"),
        ({**ARENA, "uid": "0b", "messages": "One."}, "m.jsonl:2: messages is not a list"),
        (ARENA, "m.jsonl:2: a second answer to question 0a; the first is at"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, second: Any, said: str) -> None:
    assert said in refusal(written(tmp_path / "m.jsonl", ARENA, second))


def test_a_response_that_is_no_text_is_refused(tmp_path: Path) -> None:
    assert "m.json:1: output is not a string (it is a boolean)" in refusal(
        written(tmp_path / "m.json", {**ALPACA, "output": True})
    )


def test_two_choices_for_a_question_are_refused(tmp_path: Path) -> None:
    said = refusal(written(tmp_path / "m.jsonl", {**MT_BENCH, "choices": MT_BENCH["choices"] * 2}))
    assert "keep one answer for each question" in said


def test_a_file_of_something_else_is_refused_with_its_keys(tmp_path: Path) -> None:
    said = refusal(written(tmp_path / "m.jsonl", {"prompt": "x", "chosen": "y"}))
    assert "its first row has chosen, prompt" in said
    assert "instruction, output" in said


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is no such file of answers" in refusal(tmp_path / "m.jsonl")


def test_real_files_have_the_answers_that_their_sets_have(shared: Path) -> None:
    counts = {
        "alpaca_eval/outputs/alpaca-7b.json.gz": 805,
        "alpaca_eval/outputs/alpaca-7b_verbose.json.gz": 802,
        "arena_hard/v0.1_answer_gpt-4-0314.jsonl.gz": 500,
        "arena_hard/v2.0_answer_o3-mini-2025-01-31.jsonl.gz": 750,
        "mt_bench/reference_answer__gpt-4.jsonl": 60,
    }
    assert {name: len(read_answers(shared / "data" / name)) for name in counts} == counts


def test_answers_of_two_models_to_alpaca_eval_are_joined_by_id(shared: Path) -> None:
    one, other = (
        {answer.id: answer.prompt for answer in read_answers(shared / "data/alpaca_eval/outputs" / name)}
        for name in ("vicuna-7b.json.gz", "gpt4_1106_preview.json.gz")
    )
    assert one == other
