"""Arena-Hard's figures: closed forms of two players, known strengths found again, style taken out, files refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from prefopt.errors import UserError
from prefopt.evaluate.bradley_terry import Comparison, bootstrap, fit
from prefopt.evaluate.measure import EvalPlace
from prefopt.evaluate.measures.arena_hard import ArenaHard
from prefopt.evaluate.settings import EvalSettings
from prefopt.evaluate.style_features import features, style_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "arena_hard"


def place(tmp_path: Path, resamples: int = 200) -> EvalPlace:
    return EvalPlace(EvalSettings(resamples=resamples), tmp_path, "", None, "cpu")


def judgments(path: Path, games: list[tuple[str | None, str | None]], category: str = "", old: bool = False) -> str:
    with open(path, "w", encoding="utf-8") as file:
        for number, labels in enumerate(games):
            row = {
                "question_id" if old else "uid": f"q{number}",
                "model": path.stem,
                "games": [{"score": label, "judgment": "..."} for label in labels],
                **({"category": category} if category else {}),
            }
            file.write(json.dumps(row) + "\n")
    return str(path)


def battles(
    first: list[int], second: list[int], outcome: list[float], weight: list[float], style: np.ndarray | None = None
) -> Comparison:
    n = len(first)
    return Comparison(
        np.array(first),
        np.array(second),
        np.array(outcome, dtype=float),
        np.array(weight, dtype=float),
        np.zeros((n, 0)) if style is None else style,
    )


def test_strength_of_two_players_is_the_log_odds_of_the_mean_outcome():
    # 3 won at weight 1, one lost at weight 2, one tie: mean outcome 3.5 / 6, log odds ln(3.5 / 2.5)
    found = fit(battles([0] * 5, [1] * 5, [1, 1, 1, 0, 0.5], [1, 1, 1, 2, 1]), 2, 1)
    assert found.players == pytest.approx([math.log(3.5 / 2.5), 0], abs=1e-6)


def test_strengths_of_a_chain_add_up():
    # 0 beats 1 in 3 of 4, 1 beats 2 in 2 of 3; a chain is fitted exactly: ln 3 and ln 2 apart
    found = fit(battles([0] * 4 + [1] * 3, [1] * 4 + [2] * 3, [1, 1, 1, 0, 1, 1, 0], [1] * 7), 3, 2)
    assert found.players == pytest.approx([math.log(3) + math.log(2), math.log(2), 0], abs=1e-5)


def test_player_that_always_wins_has_a_finite_strength_and_a_rate_near_one():
    found = fit(battles([0] * 10, [1] * 10, [1] * 10, [1] * 10), 2, 1)
    assert 1 / (1 + math.exp(-found.players[0])) == pytest.approx(1, abs=1e-4)


def test_known_strengths_and_style_are_found_within_their_intervals():
    rng = np.random.default_rng(0)
    true, c, n = np.array([0.8, -0.5, 0.2, 0.0]), 0.7, 6000
    first = rng.integers(0, 4, n)
    second = (first + rng.integers(1, 4, n)) % 4
    style = rng.normal(0, 1, (n, 1)) + 0.5 * (true[first] - true[second])[:, None]  # the better ones write more
    logits = true[first] - true[second] + c * style[:, 0]
    outcome = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(float)
    games = Comparison(first, second, outcome, np.ones(n), style)
    whole, fits = bootstrap(games, np.arange(n), 4, 3, 60, seed=1)
    low, high = np.percentile([[*f.players[:3], *f.style] for f in fits], [0.5, 99.5], axis=0)
    for value, bottom, top in zip([*true[:3], c], low, high):
        assert bottom < value < top
    # Without control for style the differences that style makes are taken for strength.
    plain = fit(Comparison(first, second, outcome, np.ones(n), np.zeros((n, 0))), 4, 3)
    assert plain.players[0] > whole.players[0] + 0.1


def test_win_rate_is_the_weighted_mean_of_both_games(tmp_path):
    # Game 1 has the baseline as A, game 2 the model. q0: model wins strongly, wins; q1: tie, loses strongly; q2: loses,
    # wins. Weighted: wins 3 + 1 + 0.5 + 0 + 0 + 1 = 5.5 of 3 + 1 + 1 + 3 + 1 + 1 = 10
    file = judgments(tmp_path / "mine.jsonl", [("B>>A", "A>B"), ("A=B", "B>>A"), ("A>B", "A>B")])
    found = ArenaHard([file])(place(tmp_path))
    figure = found.figures["mine/win_rate"]
    assert (figure.value, figure.count) == (pytest.approx(55, abs=1e-4), 3)
    assert figure.low < 55 < figure.high
    # Strong verdicts that count once: 1 + 1 + 0.5 + 0 + 0 + 1 = 3.5 of 6
    once = ArenaHard([file], strong=1)(place(tmp_path))
    assert once.figures["mine/win_rate"].value == pytest.approx(100 * 3.5 / 6, abs=1e-4)


def test_labels_may_be_written_from_either_side_and_old_files_have_question_id(tmp_path):
    one = judgments(tmp_path / "one.jsonl", [("A<<B", "B<A"), ("B=A", "A<<B")])
    other = judgments(tmp_path / "other.jsonl", [("B>>A", "A>B"), ("A=B", "B>>A")], old=True)
    found = ArenaHard([one, other])(place(tmp_path))
    assert found.figures["one/win_rate"].value == pytest.approx(found.figures["other/win_rate"].value)
    assert found.figures["one/win_rate"].value == pytest.approx(100 * 4.5 / 8, abs=1e-4)


def test_question_without_two_verdicts_is_an_error_that_names_it_or_is_left_out(tmp_path):
    file = judgments(tmp_path / "mine.jsonl", [("B>A", "A>B"), (None, "A>B"), ("A>B", "A>B")])
    with pytest.raises(UserError, match=r"1 of 3 questions have no two verdicts; the first is .*mine.jsonl:2"):
        ArenaHard([file])(place(tmp_path))
    found = ArenaHard([file], max_missing=1)(place(tmp_path))
    assert found.left_out == {"no verdict in one of two games": 1}
    assert found.figures["mine/win_rate"].value == pytest.approx(75, abs=1e-3)


def test_file_with_fewer_questions_than_the_longest_is_refused(tmp_path):
    whole = judgments(tmp_path / "whole.jsonl", [("B>A", "A>B")] * 4)
    short = judgments(tmp_path / "short.jsonl", [("B>A", "A>B")] * 3)
    with pytest.raises(UserError, match="short: 1 of 4"):
        ArenaHard([whole, short])(place(tmp_path))


def test_unknown_verdict_is_refused_by_line(tmp_path):
    file = judgments(tmp_path / "mine.jsonl", [("B>A", "A>B"), ("A>>>B", "A>B")])
    with pytest.raises(UserError, match=r"mine.jsonl:2.*'A>>>B' is no verdict"):
        ArenaHard([file])(place(tmp_path))


def test_category_takes_its_rows_only(tmp_path):
    path = tmp_path / "mine.jsonl"
    judgments(path, [("B>A", "A>B")] * 2, "hard_prompt")
    hard = path.read_text(encoding="utf-8")
    judgments(path, [("A>B", "B>A")] * 2, "creative_writing")
    path.write_text(hard.replace("q", "h") + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UserError, match="it has: creative_writing, "):
        ArenaHard([str(path)], category="coding")(place(tmp_path))


def test_features_of_style_are_those_of_arena_hard():
    text = "# Title\n\n- one\n- **two**\n1. three\n```\n# code\n- code\n```\n__bold__"
    tokens, headers, items, bold = style_of(text)
    assert (tokens, headers, items, bold) == (len(text) / 4, 1, 3, 2)
    # (30 - 10) / 40; densities 0.1 and 0.2, 0 and 0, 0.3 and 0: -0.1 / 1.3, 0, 0.3 / 1.3
    found = features((30, 3, 0, 9), (10, 2, 0, 0), ["length", "markdown"])
    assert found == pytest.approx([0.5, -0.1 / 1.3, 0, 0.3 / 1.3])


def test_a_judge_that_only_sees_length_leaves_nothing_once_length_is_controlled(tmp_path):
    rng = np.random.default_rng(5)
    n, games = 400, []
    answers = {"long": [], "short": [], "base": []}
    for _ in range(n):
        for name, low, high in (("long", 100, 400), ("short", 30, 300), ("base", 50, 300)):
            answers[name].append(int(rng.integers(low, high)))
    files = {}
    for name in ("long", "short"):
        games = []
        for mine, base in zip(answers[name], answers["base"]):
            p = 1 / (1 + math.exp(-3 * (mine - base) / (mine + base)))
            games.append(("B>A" if rng.random() < p else "A>B", "A>B" if rng.random() < p else "B>A"))
        files[name] = judgments(tmp_path / f"{name}.jsonl", games)
    told = {}
    for name, lengths in answers.items():
        told[name] = str(tmp_path / f"answers-{name}.jsonl")
        with open(told[name], "w", encoding="utf-8") as file:
            for number, length in enumerate(lengths):
                style = {"token_len": length, "header_count": {}, "list_count": {}, "bold_count": {}}
                row = {"uid": f"q{number}", "model": name, "messages": [], "metadata": style}
                file.write(json.dumps(row) + "\n")
    measure = ArenaHard(files, style=["length"], answers=told, baseline="base")
    found = measure(place(tmp_path, 40))
    raw = found.figures["long/win_rate"].value - found.figures["short/win_rate"].value
    one, other = (found.figures[f"{name}/style_controlled_win_rate"] for name in ("long", "short"))
    assert raw > 15
    assert abs(one.value - other.value) < 6
    assert found.figures["style/length"].low > 0
    assert not found.notes
    with pytest.raises(UserError, match="headers is the same in every game"):
        ArenaHard(files, style=["markdown"], answers=told, baseline="base")(place(tmp_path, 2))


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data/arena_hard is not there")
def test_real_answers_of_v0_1_have_no_metadata_and_are_counted_in_their_text(tmp_path):
    from prefopt.evaluate.answer_files import read_answers

    told = {
        name: str(DATA / f"v0.1_answer_{file}.jsonl.gz")
        for name, file in (("gpt-3.5", "gpt-3.5-turbo-0125"), ("base", "gpt-4-0314"))
    }
    rng = np.random.default_rng(2)
    path = tmp_path / "gpt-3.5.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for answer in read_answers(told["base"]):
            scores = rng.choice(["A>>B", "A>B", "A=B", "B>A"], 2).tolist()
            row = {"uid": answer.id, "model": "gpt-3.5", "games": [{"score": score} for score in scores]}
            file.write(json.dumps(row) + "\n")
    measure = ArenaHard([str(path)], style=["length", "markdown"], answers=told, baseline="base", expected=500)
    found = measure(place(tmp_path, 20))
    assert found.figures["gpt-3.5/style_controlled_win_rate"].count == 500
    assert len([name for name in found.figures if name.startswith("style/")]) == 4
    assert "a token for 4 characters" in found.notes[0]
