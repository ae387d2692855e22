"""Sampling and ranking give what the papers' procedures give on recorded inputs, and as often as they should."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from prefopt.pairs.ranking import by_scores, by_wins, first_round, oriented, reward_from_baseline, tournament
from prefopt.pairs.rejection import acceptance, rejection_sample

ORACLES = Path(__file__).resolve().parents[1] / "oracles"


def cases(name: str, *categories: str) -> list[Any]:
    """The cases of some categories (all without any), named by their ids."""
    oracle = json.loads((ORACLES / f"{name}.json").read_text(encoding="utf-8"))
    found = [c for c in oracle["cases"] if not categories or c["category"] in categories]
    return [pytest.param(case, id=case["id"]) for case in found]


ALL_SAMPLING = cases("rso_sampling")
EXACT = cases("rso_sampling", "exact_distribution")
GIVEN = [case for case in ALL_SAMPLING if case.id not in {exact.id for exact in EXACT}]
RANKING = ("tournament", "first_round", "pointwise", "reward_from_baseline")


def test_every_case_of_the_oracles_is_tested_below() -> None:
    assert len(GIVEN) == 8
    assert len(EXACT) == 2
    assert len(cases("slic_hf_sample_rank")) == len(cases("slic_hf_sample_rank", *RANKING)) == 13


@pytest.mark.parametrize("case", GIVEN)
def test_rejection_sampling_accepts_what_the_papers_listing_accepts_on_the_same_draws(case: dict[str, Any]) -> None:
    rewards, expected, hyper = case["inputs"]["rewards"], case["expected"], case["hyperparameters"]
    draws = iter(case["inputs"]["uniforms"])
    used: list[float] = []

    def draw() -> float:
        used.append(next(draws))
        return used[-1]

    accepted = rejection_sample(rewards, hyper["num_samples"], hyper["beta"], draw)
    assert list(accepted.places) == expected["accepted_indices"]
    assert len(used) == expected["uniforms_used"]
    assert accepted.rounds == expected["rounds"]
    found = [acceptance(reward, max(rewards), hyper["beta"]) for reward in rewards]
    assert found == pytest.approx(expected["first_round_acceptance_probabilities"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("case", EXACT)
def test_candidates_are_accepted_as_often_as_exact_enumeration_says(case: dict[str, Any]) -> None:
    rewards, expected, hyper = case["inputs"]["rewards"], case["expected"], case["hyperparameters"]
    runs, chance = 40_000, random.Random(2309)
    accepted = [rejection_sample(rewards, hyper["num_samples"], hyper["beta"], chance.random) for _ in range(runs)]

    def z(count: int, probability: float) -> float:
        spread = math.sqrt(runs * probability * (1 - probability))
        return abs(count - runs * probability) / spread if spread > 1e-6 else float(count != round(runs * probability))

    for place, probability in enumerate(expected["inclusion_probabilities"]):
        assert z(sum(place in one.places for one in accepted), probability) < 4
    likeliest = tuple(expected["most_likely_ordered_set"])
    assert z(sum(one.places == likeliest for one in accepted), expected["most_likely_probability"]) < 4
    rounds = [one.rounds for one in accepted]
    mean = sum(rounds) / runs
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rounds) / runs / runs)
    assert abs(mean - expected["expected_rounds"]) < 4 * deviation


@pytest.mark.parametrize("case", cases("slic_hf_sample_rank", "tournament"))
def test_tournament_is_played_as_recorded(case: dict[str, Any]) -> None:
    played = tournament(case["inputs"]["order"], by_wins(case["inputs"]["win_probabilities"]))
    assert [list(pair) for pair in played.pairs] == case["expected"]["pairs"]
    assert played.best == case["expected"]["best"]


@pytest.mark.parametrize("case", cases("slic_hf_sample_rank", "first_round"))
def test_first_round_is_played_as_recorded(case: dict[str, Any]) -> None:
    pairs = first_round(case["inputs"]["order"], by_wins(case["inputs"]["win_probabilities"]))
    assert [list(pair) for pair in pairs] == case["expected"]["pairs"]


@pytest.mark.parametrize("case", cases("slic_hf_sample_rank", "pointwise"))
def test_drawn_pairs_are_oriented_as_recorded(case: dict[str, Any]) -> None:
    scores = case["inputs"]["scores"]
    pairs = oriented([(i, j) for i, j in case["inputs"]["drawn_pairs"]], by_scores(scores))
    assert [list(pair) for pair in pairs] == case["expected"]["pairs"]
    assert scores.index(max(scores)) == case["expected"]["best"]


@pytest.mark.parametrize("case", cases("slic_hf_sample_rank", "reward_from_baseline"))
def test_reward_from_baseline_is_the_logit_as_recorded(case: dict[str, Any]) -> None:
    found = [reward_from_baseline(p) for p in case["inputs"]["win_probability_against_baseline"]]
    assert found == pytest.approx(case["expected"]["rewards"], rel=1e-6, abs=1e-9)


def test_beta_zero_takes_the_best_and_of_equal_ones_the_first() -> None:
    assert rejection_sample([1.0, 3.0, 2.0, 3.0], 3, 0.0, random.Random(0).random).places == (1, 3, 2)


def test_more_samples_than_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="3 samples of 2 candidates"):
        rejection_sample([1.0, 2.0], 3, 0.5, random.Random(0).random)


def test_a_tie_advances_the_first_and_makes_no_pair() -> None:
    played = tournament([0, 1, 2], by_scores([1.0, 1.0, 0.0]))
    assert played.pairs == ((0, 2),)
    assert played.best == 0
