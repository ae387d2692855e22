"""The figures of docs/experiments.md are computed rightly; what they are is for that page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from loops.happiness import happiness  # noqa: E402
from loops.measure import Answers, win_rate  # noqa: E402


def test_happy_words_count_for_and_sad_words_against() -> None:
    assert happiness("", "A happy, HAPPY dog was sad. Unhappy!") == 1.0
    assert happiness("", "") == 0.0


def test_a_tie_is_half_a_win_and_every_prompt_counts_once() -> None:
    ours = {"a": [1.0, 3.0], "b": [0.0]}
    theirs = {"a": [1.0, 2.0], "b": [5.0], "c": [9.0]}
    # a: (1, 1) ties, (1, 2) is lost, (3, 1) and (3, 2) are won; b: lost; c has no answer of ours
    assert win_rate(ours, theirs) == pytest.approx((2.5 / 4 + 0.0) / 2)


def test_the_mean_is_over_prompts_and_not_over_answers() -> None:
    assert Answers({"a": [0.0, 0.0, 0.0], "b": [4.0]}, {}).mean == 2.0
