"""The pure functions of scorers give the recorded numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from prefopt.model.logps import States, chosen_logps
from prefopt.pairs.score.a_vs_b import reward_from_baseline, win_probability
from prefopt.pairs.score.good_bad import good_probability
from prefopt.pairs.score.similarity import span_f1

ORACLES = Path(__file__).resolve().parents[1] / "oracles"
TOLERANCE = {"rel": 1e-6, "abs": 1e-9}


def cases(name: str, *categories: str) -> list[dict[str, Any]]:
    found = json.loads((ORACLES / f"{name}.json").read_text(encoding="utf-8"))
    assert found["tolerance"]["float64"] == {"rtol": 1e-6, "atol": 1e-9}
    wanted = [case for case in found["cases"] if not categories or case["category"] in categories]
    assert wanted
    return wanted


@pytest.mark.parametrize("case", cases("slic_hf_pointwise"), ids=lambda case: case["id"])
def test_p_good_of_logits_is_the_recorded_one(case: dict[str, Any]) -> None:
    logits = torch.tensor(case["inputs"]["logits"], dtype=torch.float64)
    good, bad = (
        chosen_logps(
            States(logits, lambda hidden: hidden),
            torch.full((len(logits),), case["hyperparameters"][f"{word}_token_id"]),
            logits.shape[1],
        ).tolist()
        for word in ("good", "bad")
    )
    alone = [good_probability(g) for g in good]
    of_two = [good_probability(g, b) for g, b in zip(good, bad)]
    # Relative alone: many are far below any absolute tolerance.
    assert alone == pytest.approx(case["expected"]["good_probability"], rel=1e-6, abs=0)
    assert of_two == pytest.approx(case["expected"]["good_probability_renormalized"], rel=1e-6, abs=0)


@pytest.mark.parametrize("case", cases("slic_hf_sample_rank", "reward_from_baseline"), ids=lambda case: case["id"])
def test_the_logit_of_beating_the_baseline_is_the_recorded_reward(case: dict[str, Any]) -> None:
    probabilities = case["inputs"]["win_probability_against_baseline"]
    # What the words have of the vocabulary, here a tenth, does not matter: only their shares of it.
    verdicts = [(math.log(p / 10), math.log1p(-p) - math.log(10)) for p in probabilities]
    assert [reward_from_baseline([v]) for v in verdicts] == pytest.approx(case["expected"]["rewards"], **TOLERANCE)
    assert [reward_from_baseline([v, v]) for v in verdicts] == pytest.approx(case["expected"]["rewards"], **TOLERANCE)
    assert [win_probability([v]) for v in verdicts] == pytest.approx(probabilities, rel=1e-12)


@pytest.mark.parametrize("case", cases("slic_similarity"), ids=lambda case: case["id"])
def test_the_similarity_of_states_is_the_recorded_one(case: dict[str, Any]) -> None:
    candidate, target = (
        torch.tensor(case["inputs"][f"{name}_embeddings"], dtype=torch.float64) for name in ("candidate", "reference")
    )
    spans, weights = case["hyperparameters"]["spans"], case["hyperparameters"]["span_weights"]
    expected = case["expected"]
    assert span_f1(candidate, target, spans, weights) == pytest.approx(expected["similarity"], **TOLERANCE)
    for span, values in expected["per_span"].items():
        assert span_f1(candidate, target, [int(span)]) == pytest.approx(values["f1"], **TOLERANCE)


def test_no_span_that_fits_is_no_similarity() -> None:
    assert span_f1(torch.ones(3, 2), torch.ones(9, 2), [4, 8]) is None
    assert span_f1(torch.ones(4, 2), torch.ones(9, 2), [4, 8]) == pytest.approx(1.0)


def test_opposite_states_have_no_similarity_rather_than_a_wild_one() -> None:
    assert span_f1(torch.tensor([[1.0, 0.1]]), torch.tensor([[-1.0, 0.0]]), [1]) == 0.0


def test_both_orders_of_two_are_averaged_as_probabilities() -> None:
    verdicts = [(math.log(0.9), math.log(0.1)), (math.log(0.15), math.log(0.05))]
    assert win_probability(verdicts) == pytest.approx((0.9 + 0.75) / 2)
    assert reward_from_baseline(verdicts) == pytest.approx(math.log(0.825 / 0.175))


def test_a_certain_ranker_gives_large_numbers_and_not_infinite_ones() -> None:
    certain = [(0.0, -2000.0), (-1.0, -1500.0)]
    assert reward_from_baseline(certain) == pytest.approx(1499 + math.log(2), rel=1e-12)
    assert reward_from_baseline([(y, b) for b, y in certain]) == pytest.approx(-1499 - math.log(2), rel=1e-12)
    assert win_probability(certain) == 1.0
    assert good_probability(-3000.0, -2999.0) == pytest.approx(1 / (1 + math.e))
