"""The account of a data set that was built: numbers by hand, and a card that names what made it."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from bed_select import example

from prefopt.pairs.card import About, card, data_file
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import LeftOut
from prefopt.pairs.statistics import Statistics, cut_sentence, spread
from prefopt.records import Candidate


def pair(chosen: str, rejected: str, gap: float) -> dict[str, object]:
    return {"prompt": "p", "chosen": chosen, "rejected": rejected, "score_chosen": gap, "score_rejected": 0.0}


def told() -> Statistics:
    statistics = Statistics()
    statistics.prompt(example([1.0, 1.0, 3.0], ["a", "a", "b"]))
    statistics.prompt(example([2.0, 2.0]))
    statistics.left_out(LeftOut("p:3", "all scores are equal"))
    statistics.left_out(LeftOut("p:4", "all scores are equal"))
    statistics.left_out(LeftOut("p:5", "a|bar"))
    statistics.left_out(LeftOut("p:1", "empty answer", "", ""))
    statistics.row(pair("one two three", "one", 2.0))
    statistics.row(pair("one", "one two", 1.0))
    statistics.row(pair("one two three four", "one", 4.0))
    statistics.row(pair("same words", "as many", 3.0))
    return statistics


def test_statistics_are_those_counted_by_hand() -> None:
    assert told().as_dict() == {
        "prompts": {"with_candidates": 2, "left_out": {"all scores are equal": 2, "a|bar": 1}},
        "candidates": {
            "count": 5,
            "per_prompt": {"mean": 2.5, "min": 2.0, "q1": 2.25, "median": 2.5, "q3": 2.75, "max": 3.0},
            "left_out": {"empty answer": 1},
            "duplicates": 1,
            "prompts_with_duplicates": 1,
            "scores": {"mean": 1.8, "min": 1.0, "q1": 1.0, "median": 2.0, "q3": 2.0, "max": 3.0},
            # Of both prompts 9 / 5 is drawn half of the time, one of them twice else: 10 / 6 and 8 / 4.
            "mean_score_95": (10 / 6, 2.0),
            "cut": {"count": 0, "by_server": 0, "of": 0},
            "tied_share": 0.5,
            "prompts_all_tied": 1,
        },
        "rows": {
            "count": 4,
            "words": {
                "chosen": {"mean": 2.5, "min": 1.0, "q1": 1.75, "median": 2.5, "q3": 3.25, "max": 4.0},
                "rejected": {"mean": 1.5, "min": 1.0, "q1": 1.0, "median": 1.5, "q3": 2.0, "max": 2.0},
            },
            "score_gap": {"mean": 2.5, "min": 1.0, "q1": 1.75, "median": 2.5, "q3": 3.25, "max": 4.0},
            "longer_chosen_share": 2 / 3,
            "equally_long": 1,
        },
    }


def test_rankings_and_single_responses_are_counted_too() -> None:
    statistics = Statistics()
    statistics.row({"prompt": "p", "responses": ["a b", "c"], "scores": [3.0, 1.0]})
    rows = statistics.as_dict()["rows"]
    assert (rows["words"]["responses"]["mean"], rows["score_gap"]["mean"]) == (1.5, 2.0)
    assert "longer_chosen_share" not in rows
    statistics = Statistics()
    statistics.row({"prompt": "p", "completion": "a b c"})
    assert statistics.as_dict()["rows"]["words"]["completion"]["max"] == 3.0


def test_nothing_at_all_has_statistics() -> None:
    empty = Statistics().as_dict()
    assert empty["rows"] == {"count": 0, "words": {}, "score_gap": None}
    assert empty["candidates"]["tied_share"] is None
    assert spread([]) is None
    assert spread([2.0]) == {"mean": 2.0, "min": 2.0, "q1": 2.0, "median": 2.0, "q3": 2.0, "max": 2.0}


def test_the_interval_of_the_mean_score_covers_the_mean_and_draws_whole_prompts() -> None:
    draw = random.Random(0)
    means = [draw.gauss(0.0, 1.0) for _ in range(400)]
    statistics = Statistics()
    for mean in means:
        statistics.prompt(example([mean, mean, mean]))  # three answers that say what one of them says
    low, high = statistics.as_dict()["candidates"]["mean_score_95"]
    assert low < fmean(means) < high
    assert high - low == pytest.approx(2 * 1.96 * pstdev(means) / 400**0.5, rel=0.1)


def test_one_prompt_has_no_interval() -> None:
    statistics = Statistics()
    statistics.prompt(example([1.0, 2.0]))
    assert statistics.as_dict()["candidates"]["mean_score_95"] is None


def of_sources(*sources: dict[str, object] | None) -> dict[str, object]:
    statistics = Statistics()
    candidates = tuple(Candidate(f"t{n}", 1.0 * n, source=source) for n, source in enumerate(sources))
    statistics.prompt(replace(example([1.0]), candidates=candidates))
    return statistics.as_dict()


def test_candidates_that_were_cut_and_kept_are_counted_in_a_sentence() -> None:
    numbers = of_sources({"stopped": False}, {"stopped": True}, {"stopped": False}, {"given": True}, None)
    said = "2 of 3 candidates were cut at generate.max_new_tokens and are closed as if whole"
    assert cut_sentence(numbers) == f"{said} (generate.unfinished=keep)"
    assert cut_sentence(of_sources({"finish": "length"}, {"finish": "stop"})) == said.replace("2 of 3", "1 of 2")
    assert cut_sentence(of_sources({"stopped": True}, None)) == ""


def made_card(tmp_path: Path, **changed: object) -> str:
    settings = PairsSettings(
        name="mine",
        prompts="prompts.jsonl",
        policy=["models/a", "models/b"],
        reward="models/reward",
        seed=7,
        generate={"name": "sample", "n": 8, "temperature": 0.7},
        score={"name": "reward"},
        margins=[{"name": "length"}],
        select={"name": "rso", "num_samples": 8, "beta": 0.5},
    )
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    about = About(
        settings,
        {"python": "3.12", "prefopt": "0.1.0"},
        (data_file(tmp_path / "pairs.jsonl", "rows"),),
        ({"path": "mt_bench/question.jsonl", "rows": 80, "unreadable": 0},),
    )
    return card(about, told().as_dict())


def test_card_names_policies_sampling_scorer_selector_seed_versions_files_and_evaluations(tmp_path: Path) -> None:
    text = made_card(tmp_path)
    for part in (
        "# mine\n\n4 rows from 2 prompts",
        "| policies | models/a, models/b |",
        "| generate | sample (n=8, temperature=0.7) |",
        "| score | reward |",
        "| objective 1 | length |",
        "| select | rso (num_samples=8, beta=0.5) |",
        "| reward | models/reward |",
        "| seed | 7 |",
        "| versions | python 3.12, prefopt 0.1.0 |",
        f"| pairs.jsonl | rows | `{hashlib.sha256(b'{}' + chr(10).encode()).hexdigest()}` |",
        "| mt_bench/question.jsonl | 80 | 0 |",
        "- mean score of a candidate: 1.8, 95 % interval 1.667 to 2 (bootstrap over prompts)",
        "chosen is the longer in 66.7% of the pairs",
        "| all scores are equal | 2 |",
        r"| a\|bar | 1 |",
    ):
        assert part in text, text


def test_every_line_of_a_table_has_as_many_cells(tmp_path: Path) -> None:
    for table in re.findall(r"(?:^\|.*\|\n?)+", made_card(tmp_path), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_card_says_that_nothing_was_looked_for_where_no_evaluation_is_named() -> None:
    text = card(About(PairsSettings(name="mine"), {}), Statistics().as_dict())
    assert "Not looked for" in text
    assert "| policies | none |" in text


def test_card_masks_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "very-secret-word")
    text = card(About(PairsSettings(name="mine", prompts="very-secret-word"), {}), Statistics().as_dict())
    assert "very-secret-word" not in text
