"""Win rates by a real reward model: the answer of the higher reward wins, as plain forwards of transformers have it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pairs"))
from score_bed import chat, make_model, own_heads, with_head

from prefopt.evaluate.measure import EvalPlace
from prefopt.evaluate.measures.win_rate import WinRate
from prefopt.evaluate.settings import EvalSettings


def write(path: Path, responses: list[str]) -> str:
    rows = [{"id": f"q{i}", "prompt": f"Say {i}", "response": r, "generator": "g"} for i, r in enumerate(responses)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_answer_of_the_higher_reward_wins_and_equal_ones_tie(tmp_path):
    reward = with_head(make_model(tmp_path / "base"), tmp_path / "reward", ["good"])
    mine = ["Hello!", "No idea", "It scatters light.", "the same"]
    theirs = ["h", "What can I do?", "Ask me again, please.", "the same"]
    measure = WinRate(write(tmp_path / "a.jsonl", mine), write(tmp_path / "b.jsonl", theirs))
    settings = EvalSettings(reward=str(reward), resamples=50)
    found = measure(EvalPlace(settings, tmp_path / "eval", "", None, "cpu"))
    expected = []
    for i, (one, other) in enumerate(zip(mine, theirs)):
        (first,), (second,) = own_heads(reward, chat(f"Say {i}", one, other))
        assert found.rows[i]["reward"] == pytest.approx(first, abs=1e-5)
        assert found.rows[i]["baseline_reward"] == pytest.approx(second, abs=1e-5)
        expected.append(0.5 if one == other else float(first > second))
    assert [row["preference"] for row in found.rows] == expected
    assert found.figures["win_rate"].value == pytest.approx(25 * sum(expected))
    assert not [name for name in found.figures if name.startswith("orders/")]
