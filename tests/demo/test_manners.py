"""The world: its judge and its data."""

from __future__ import annotations

import pytest

from prefopt.demo import manners
from prefopt.demo.manners import Judgement, judge

COW = "A cow makes which noise?"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (" Sure thing! A cow moos. I hope that helps!", Judgement(True, True, False, 3.0)),
        (" Not again. A cow moos. Now go away.", Judgement(True, False, True, 1.0)),
        (" Sure thing! A cow barks. I hope that helps!", Judgement(False, True, False, 1.0)),
        (" Not again. A cow barks. Now go away.", Judgement(False, False, True, -1.0)),
        ("a COW\nmoos", Judgement(True, False, False, 2.0)),
        (" Sure thing! A cow moos. Now go away.", Judgement(True, True, True, 2.0)),
        (" A cow moos. A cow barks.", Judgement(False, False, False, 0.0)),
        (" A cow moosmoos.", Judgement(False, False, False, 0.0)),
        (" A dog moos.", Judgement(False, False, False, 0.0)),
        ("", Judgement(False, False, False, 0.0)),
        ("\x00\ufffd [/bold] 中文 \u2028 !!!", Judgement(False, False, False, 0.0)),
    ],
)
def test_judge_knows_the_worth_of_an_answer(answer: str, expected: Judgement) -> None:
    assert judge(COW, answer) == expected


def test_right_is_unknown_for_a_question_of_another_world() -> None:
    assert judge("Who wrote this?", " Sure thing! A cow moos.") == Judgement(None, True, False, 1.0)


def test_values_of_a_kind_differ() -> None:
    """Otherwise a wrong value drawn from another fact could be right."""
    assert all(len(set(kind.facts.values())) == len(kind.facts) == 8 for kind in manners.KINDS)


def test_every_answer_of_the_world_has_one_style_and_the_utility_it_was_made_with() -> None:
    """No phrase holds a value of some kind or a phrase of the other style."""
    for question in manners.questions():
        for openers, closers, style in (
            (manners.POLITE_OPENERS, manners.POLITE_CLOSERS, 1.0),
            (manners.RUDE_OPENERS, manners.RUDE_CLOSERS, -1.0),
        ):
            for opener, closer in zip(openers, closers):
                for value in question.kind.facts.values():
                    judgement = judge(question.prompt, f" {opener} {question.statement(value)} {closer}")
                    right = value == question.value
                    assert judgement == (right, style == 1.0, style == -1.0, 2.0 * right + style)


@pytest.mark.parametrize("make", [manners.train_rows, manners.heldout_rows])
def test_the_chosen_response_has_the_greater_utility_in_every_row(make) -> None:
    for row in make():
        assert judge(row["prompt"], row["chosen"]).utility > judge(row["prompt"], row["rejected"]).utility


def test_data_has_the_promised_size_and_is_the_same_each_time() -> None:
    assert len(manners.train_rows()) == 1500
    assert len(manners.heldout_rows()) == 256
    assert manners.to_jsonl(manners.train_rows()) == manners.to_jsonl(manners.train_rows())
    assert manners.train_rows(seed=0) != manners.train_rows(seed=1)
    assert manners.pretraining_lines(50, seed=3) == manners.pretraining_lines(50, seed=3)


def test_training_and_heldout_rows_share_no_prompt() -> None:
    train = {row["prompt"] for row in manners.train_rows()}
    heldout = {row["prompt"] for row in manners.heldout_rows()}
    assert len(train) == 64
    assert len(heldout) == 32
    assert not train & heldout


def test_the_world_lies_and_sneers_as_often_as_it_says() -> None:
    prompt_of = {q.prompt: q for q in manners.questions()}
    judged = []
    for line in manners.pretraining_lines(4000, seed=0):
        end = line.index("?") + 1
        assert line[:end] in prompt_of
        judged.append(judge(line[:end], line[end:]))
    assert sum(j.rude for j in judged) / 4000 == pytest.approx(1 - manners.POLITE_SHARE, abs=0.03)
    assert sum(bool(j.right) for j in judged) / 4000 == pytest.approx(manners.RIGHT_SHARE, abs=0.03)
