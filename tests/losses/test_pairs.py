"""The pairwise methods: value at policy = reference, a case computed by hand, the gradient's sign, refused settings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from bed import sigmoid, softplus, total, two

from prefopt.batch import Responses
from prefopt.errors import UserError
from prefopt.losses import make_loss

LN2 = math.log(2)


def hand() -> Responses:
    """Sums -3 and -6, means -1.5 and -2, log-ratios +1 and -2, per token +1/2 and -2/3."""
    return two([-1.0, -2.0], [-3.0, -1.0, -2.0], (-4.0, -4.0))


AT_REFERENCE = [
    ("dpo", {}, LN2),
    ("ipo", {"beta": 0.25}, 4.0),
    ("ipo", {"beta": 0.25, "normalisation": "sum"}, 4.0),
    ("cdpo", {}, LN2),
    ("robust_dpo", {}, LN2),
    ("dpo_hinge", {}, 1.0),
    ("dpo_length_normalized", {}, LN2),
    ("r_dpo", {}, LN2),
    ("apo_zero", {}, 1.0),
    ("apo_down", {}, 1.0),
    ("exo_pair", {"label_smoothing": 0.1}, -LN2 - (math.log(0.9) + math.log(0.1)) / 2),
    ("nca_pair", {}, 2 * LN2),
]


@pytest.mark.parametrize(("name", "settings", "expected"), AT_REFERENCE)
def test_value_when_policy_equals_reference_and_lengths_are_equal(name: str, settings: dict, expected: float) -> None:
    r = two([-1.0, -2.0], [-3.0, -1.0], (-3.0, -4.0))
    assert total({"name": name, **settings}, r).item() == pytest.approx(expected, rel=1e-14)


BY_HAND = [
    ("ipo", {"beta": 0.5}, (1 / 2 + 2 / 3 - 1) ** 2),
    ("ipo", {"beta": 0.5, "normalisation": "sum"}, (3 - 1) ** 2),
    ("cdpo", {"beta": 0.5, "label_smoothing": 0.2}, 0.8 * softplus(-1.5) + 0.2 * softplus(1.5)),
    ("robust_dpo", {"beta": 0.5, "label_smoothing": 0.2}, (0.8 * softplus(-1.5) - 0.2 * softplus(1.5)) / 0.6),
    ("dpo_hinge", {"beta": 0.1}, 1 - 0.3),
    ("dpo_hinge", {"beta": 0.5}, 0.0),
    ("dpo_length_normalized", {"beta": 2.0}, softplus(-2 * (1 / 2 + 2 / 3))),
    ("r_dpo", {"beta": 0.5, "alpha": 0.1}, softplus(-(1.5 - 0.1))),
    ("apo_zero", {"beta": 0.5}, 1 - sigmoid(0.5) + sigmoid(-1.0)),
    ("apo_down", {"beta": 0.5}, sigmoid(0.5) + 1 - sigmoid(1.5)),
    ("cpo", {"beta": 0.5, "nll_weight": 0.3}, softplus(-1.5) + 0.3 * 1.5),
    ("cpo", {"beta": 0.5, "label_smoothing": 0.1}, 0.9 * softplus(-1.5) + 0.1 * softplus(1.5) + 1.5),
    ("cpo_simpo", {"beta": 2.0, "gamma_beta_ratio": 0.3, "nll_weight": 0.2}, softplus(-0.4) + 0.2 * 1.5),
    ("alphapo", {"beta": 2.0, "gamma_beta_ratio": 0.3, "alpha": 0.0}, softplus(-0.4)),
    (
        "alphapo",
        {"beta": 2.0, "gamma_beta_ratio": 0.3, "alpha": 0.5},
        softplus(-2 * ((math.exp(1.0) - math.exp(0.75)) / 0.5 - 0.3)),
    ),
    ("slic_hf", {"delta": 5.0, "lam": 0.2}, 5.0 - 3.0 + 0.2 * 3.0),
    ("slic_hf", {"delta": 1.0, "lam": 0.2}, 0.2 * 3.0),
    (
        "exo_pair",
        {"beta": 0.5, "label_smoothing": 0.1},
        sigmoid(1.5) * math.log(sigmoid(1.5) / 0.9) + sigmoid(-1.5) * math.log(sigmoid(-1.5) / 0.1),
    ),
    ("nca_pair", {"beta": 0.5}, softplus(-0.5) + softplus(0.5) / 2 + softplus(-1.0) / 2),
]


@pytest.mark.parametrize(("name", "settings", "expected"), BY_HAND)
def test_value_by_hand(name: str, settings: dict, expected: float) -> None:
    assert total({"name": name, **settings}, hand()).item() == pytest.approx(expected, rel=1e-12)


SIGNED = [
    "ipo",
    "cdpo",
    "robust_dpo",
    "dpo_hinge",
    "dpo_length_normalized",
    "r_dpo",
    "apo_zero",
    "cpo",
    "cpo_simpo",
    "alphapo",
    "exo_pair",
    "nca_pair",
]


@pytest.mark.parametrize("name", SIGNED)
def test_a_step_down_the_loss_raises_the_chosen_and_lowers_the_rejected(name: str) -> None:
    r = hand()
    total({"name": name}, r).backward()
    assert r.token_logps.grad is not None
    assert (r.token_logps.grad[:2] < 0).all()
    assert (r.token_logps.grad[2:] > 0).all()


def test_apo_down_lowers_both_and_the_rejected_more() -> None:
    r = two([-1.0, -2.0], [-3.0, -1.0, -2.0], (-4.0, -10.0))  # log-ratios +1 and +4: the wrong way round
    total({"name": "apo_down", "beta": 0.5}, r).backward()
    assert r.token_logps.grad is not None
    assert (r.token_logps.grad[2:] > 0).all()
    r = hand()  # the right way round: the chosen goes down too
    total({"name": "apo_down", "beta": 0.5}, r).backward()
    assert r.token_logps.grad is not None
    assert (r.token_logps.grad[:2] > 0).all()


def test_slic_hf_raises_the_chosen_and_lowers_the_rejected_inside_its_margin() -> None:
    r = hand()
    total({"name": "slic_hf", "delta": 5.0}, r).backward()
    assert r.token_logps.grad is not None
    assert r.token_logps.grad.tolist() == pytest.approx([-1.1, -1.1, 1, 1, 1])


def test_alphapo_keeps_a_gradient_where_its_exponential_would_overflow() -> None:
    r = two([-5000.0], [-1.0], (-3.0, -4.0))
    total({"name": "alphapo"}, r).backward()
    assert r.token_logps.grad is not None
    assert r.token_logps.grad.isfinite().all()
    assert r.token_logps.grad[0] < 0


def test_ipo_pulls_back_beyond_its_margin() -> None:
    r = hand()
    total({"name": "ipo", "beta": 0.5, "normalisation": "sum"}, r).backward()
    assert r.token_logps.grad is not None
    assert (r.token_logps.grad[:2] > 0).all()


def test_a_longer_chosen_response_needs_less_log_ratio_under_r_dpo() -> None:
    longer = replace(hand(), lengths=torch.tensor([30, 3]))
    assert total({"name": "r_dpo"}, longer) < total({"name": "r_dpo"}, hand())


REFUSED = [
    ({"name": "ipo", "normalisation": "length"}, "normalisation must be mean or sum"),
    ({"name": "cdpo", "label_smoothing": 0.0}, "at 0 it is loss=dpo"),
    ({"name": "robust_dpo", "label_smoothing": 0.5}, "label_smoothing must be in (0, 0.5)"),
    ({"name": "r_dpo", "alpha": 0.0}, "at 0 it is loss=dpo"),
    *[({"name": name, "beta": 0.0}, "beta must be above 0") for name, _, _ in AT_REFERENCE],
    ({"name": "cpo", "nll_weight": -1.0}, "nll_weight must be 0 or more"),
    ({"name": "cpo_simpo", "nll_weight": 0.0}, "at 0 it is loss=simpo"),
    ({"name": "alphapo", "beta": 0.0}, "beta must be above 0"),
    ({"name": "slic_hf", "delta": 0.0}, "delta must be above 0"),
    ({"name": "slic_hf", "lam": -0.1}, "lam must be 0 or more"),
    ({"name": "exo_pair", "label_smoothing": 0.0}, "label_smoothing must be in (0, 0.5)"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_a_setting_without_effect_or_out_of_range_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_loss(settings)
    assert said in str(error.value)
