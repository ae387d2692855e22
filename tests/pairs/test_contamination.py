"""Prompts of evaluations are found among prompts to train on: equal ones, and those that share 13 words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefopt.errors import UserError
from prefopt.pairs.contamination import Contamination, words_of
from prefopt.pairs.prompt_rows import open_prompt_rows, turn_texts
from prefopt.records import Example, Message
from prefopt.settings import SourceSettings

NUMBERS = [f"word{number}" for number in range(14)]


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def plain(text: str) -> Example:
    return Example("mine:1", (Message("user", text),), (), False)


def chat(*turns: str) -> Example:
    roles = ("user", "assistant")
    return Example("mine:1", tuple(Message(roles[n % 2], turn) for n, turn in enumerate(turns)), ())


def test_words_have_no_case_no_punctuation_and_one_width() -> None:
    odd = "  Don't, STOP!  state-of-the_art\u2028ｆｕｌｌ Straße"
    assert words_of(odd) == words_of("dont stop state of the art full STRASSE")


def test_equal_prompts_are_found_whatever_their_case_punctuation_and_spaces(tmp_path: Path) -> None:
    found = Contamination([write(tmp_path / "q.jsonl", "How are you?", "Who's there?")])
    overlap = found(plain("  who’s THERE !!"))
    assert overlap is not None
    assert (overlap.path, overlap.row, overlap.words) == (str(tmp_path / "q.jsonl"), "q.jsonl:2", "")
    assert found(plain("Who is there?")) is None
    assert found(plain("How are you today?")) is None


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_none(tmp_path: Path) -> None:
    found = Contamination([write(tmp_path / "q.jsonl", "Start. " + " ".join(NUMBERS))])
    overlap = found(plain("Count: " + ", ".join(NUMBERS[1:]) + " and so on"))
    assert overlap is not None
    assert overlap.words == " ".join(NUMBERS[1:])
    assert str(overlap) == f'q.jsonl:1 shares "{overlap.words}"'
    assert found(plain("Count: " + " ".join(NUMBERS[1:13]) + " and so on")) is None
    assert found(plain(" ".join([*NUMBERS[:6], "and", *NUMBERS[6:]]))) is None


def test_a_run_does_not_reach_over_turns(tmp_path: Path) -> None:
    found = Contamination([write(tmp_path / "q.jsonl", {"turns": [" ".join(NUMBERS[:7]), " ".join(NUMBERS[7:])]})])
    assert found(plain("say " + " ".join(NUMBERS))) is None
    assert found(chat(" ".join(NUMBERS[:7]), "answer", " ".join(NUMBERS[7:]))) is not None


def test_the_first_turn_alone_is_the_same_prompt_and_answers_do_not_count(tmp_path: Path) -> None:
    found = Contamination([write(tmp_path / "q.jsonl", {"turns": ["Write a poem.", "Again."]})])
    assert found(plain("Write a poem")) is not None
    assert found(chat("Write a poem", "Roses", "Shorter")) is not None
    assert found(chat("Hello", "Write a poem.", "Again")) is None
    assert found(plain("Again")) is None


def test_a_prompt_without_words_overlaps_with_nothing(tmp_path: Path) -> None:
    assert Contamination([write(tmp_path / "q.jsonl", "?!", "Why?")])(plain("...")) is None


def test_rows_whose_response_is_missing_still_count(tmp_path: Path) -> None:
    rows = {"instruction": "Add two.", "output": "2"}, {"instruction": "Add three.", "output": None}, {"output": "x"}
    found = Contamination([write(tmp_path / "q.jsonl", *rows)])
    assert found(plain("Add three")) is not None
    assert [e.as_json() for e in found.evaluations] == [{"path": str(tmp_path / "q.jsonl"), "rows": 3, "unreadable": 1}]


def test_files_of_pairs_and_rankings_are_evaluations_too(tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.jsonl", {"prompt": "Pairs?", "chosen": "a", "rejected": "b"})
    lists = write(tmp_path / "lists.jsonl", {"prompt": "Lists?", "responses": ["a", "b"], "scores": [1, 2]})
    found = Contamination([pairs, lists])
    assert [str(found(plain(text))) for text in ("pairs", "lists", "others")] == [
        *("pairs.jsonl:1 is the same prompt", "lists.jsonl:1 is the same prompt", "None"),
    ]


def test_a_file_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no prompt can be read from any of its 2 rows \(q.jsonl:1: prompt is neither"):
        Contamination([write(tmp_path / "q.jsonl", {"prompt": 1}, {"prompt": 2})])
    with pytest.raises(UserError, match="holds prompts"):
        Contamination([write(tmp_path / "r.jsonl", {"answer": "a"})])


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("alpaca_eval/outputs/text_davinci_003.json.gz", 805),
        ("alpaca_eval/annotations_gpt4/alpaca-7b.json.gz", 805),
        ("arena_hard/v0.1_question.jsonl.gz", 500),
        ("arena_hard/v2.0_question.jsonl.gz", 750),
        ("mt_bench/question.jsonl", 80),
        ("mt_bench/vicuna_bench__question.jsonl", 80),
    ],
)
def test_planted_copies_of_every_real_question_are_found(file: str, count: int, shared: Path) -> None:
    path = str(shared / "data" / file)
    found = Contamination([path])
    (evaluation,) = found.evaluations
    assert evaluation.rows == count  # lines end at "\n" only: U+2028 stands inside rows
    assert evaluation.unreadable == 0
    opened = open_prompt_rows(SourceSettings(path=path))
    wordless = 0
    for row in opened.rows:
        first = turn_texts(row, opened.prompt_only)[0]
        wordless += not words_of(first)
        shouted = "  " + first.upper().replace(" ", "  ").replace(".", " !")
        assert (found(plain(shouted)) is None) == (not words_of(first)), row.id
        words = words_of(first)
        if len(words) >= 13:
            middle = len(words) // 2 - 6
            inside = found(plain("My homework says: " + " ".join(words[middle : middle + 13]) + ". Is that right?"))
            assert inside is not None, row.id
            assert inside.words == " ".join(words[middle : middle + 13])
    assert wordless == 0


def test_prompts_of_another_origin_overlap_with_none(shared: Path) -> None:
    data = shared / "data"
    found = Contamination(
        [str(data / "mt_bench" / "question.jsonl"), str(data / "arena_hard" / "v0.1_question.jsonl.gz")]
    )
    opened = open_prompt_rows(SourceSettings(path=str(data / "oasst_en100" / "prompts_250.jsonl.gz")))
    assert sum(found(opened.read(row)) is not None for row in opened.rows) == 0
