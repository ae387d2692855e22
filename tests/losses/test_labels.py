"""Methods that learn from single responses with labels: kto, apo_zero_unpaired, ulma."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from bed import Row, counts, make, sigmoid, softplus, total, value

from prefopt.batch import Responses, Unit
from prefopt.errors import UserError
from prefopt.losses import make_loss

LN2 = math.log(2)


def hand(kl: float = 0.4) -> Responses:
    """Log-ratios +1, -2 and -0.3 over 2, 3 and 1 tokens; the second is undesirable and scored 0.25."""
    rows = [
        Row((-1.0, -2.0), -4.0, True, 0.5),
        Row((-3.0, -1.0, -2.0), -4.0, False, 0.25),
        Row((-0.5,), -0.2, True, 1.0),
    ]
    return replace(make([[row] for row in rows]), kl=torch.tensor(kl, dtype=torch.float64))


def at_reference() -> Responses:
    rows = [Row((-1.0, -2.0), -3.0, True), Row((-3.0, -1.0), -4.0, False)]
    return replace(make([[row] for row in rows]), kl=torch.tensor(0.0, dtype=torch.float64))


def only(r: Responses, label: bool) -> Responses:
    """`r` with every response labelled alike."""
    assert r.labels is not None
    return replace(r, labels=torch.full_like(r.labels, label))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "kto"}, 0.5),
        ({"name": "apo_zero_unpaired"}, 0.5),
        ({"name": "ulma", "positive": "pointwise_dpo"}, 2 * LN2),
        (
            {"name": "ulma", "positive": "pointwise_dpo", "z": 1.0},
            softplus(-1) + softplus(1),
        ),
    ],
)
def test_value_when_policy_equals_reference(settings: dict, expected: float) -> None:
    assert value(settings, at_reference()) == pytest.approx(expected, rel=1e-14)


U = (1 / 2, -2 / 3, -0.3)
"""Log-ratios per token of `hand`."""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"name": "kto", "beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.7},
            (1.3 * sigmoid(-0.5 * 0.6) + 0.7 * sigmoid(0.5 * -2.4) + 1.3 * sigmoid(0.5 * 0.7)) / 3,
        ),
        (
            {"name": "apo_zero_unpaired", "beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.7},
            (1.3 * sigmoid(-0.5) + 0.7 * sigmoid(-1.0) + 1.3 * sigmoid(0.15)) / 3,
        ),
        ({"name": "ulma", "beta": 2.0}, (1.5 + 0.5) / 2 + softplus(2 * U[1])),
        ({"name": "ulma", "beta": 2.0, "positive": "beta_logloss"}, 2 * (1.5 + 0.5) / 2 + softplus(2 * U[1])),
        ({"name": "ulma", "beta": 2.0, "positive": "token_mean"}, (3 + 0.5) / 3 + softplus(2 * U[1])),
        (
            {"name": "ulma", "beta": 2.0, "positive": "pointwise_dpo", "z": 0.3},
            (softplus(-2 * U[0] - 0.3) + softplus(-2 * U[2] - 0.3)) / 2 + softplus(2 * U[1] + 0.3),
        ),
        (
            {"name": "ulma", "beta": 2.0, "negative": "continuous", "z": 0.3},
            (1.5 + 0.5) / 2 + (0.25 - 2 * U[1] - 0.3) ** 2,
        ),
    ],
)
def test_value_by_hand(settings: dict, expected: float) -> None:
    assert value(settings, hand()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize(("label", "sign"), [(True, -1), (False, 1)])
def test_a_step_down_the_loss_raises_desirable_and_lowers_undesirable_responses(
    name: str, label: bool, sign: int
) -> None:
    r = only(hand(), label)
    total({"name": name}, r).backward()
    assert r.token_logps.grad is not None
    assert (r.token_logps.grad.sign() == sign).all()


@pytest.mark.parametrize("negative", ["binary", "continuous"])
@pytest.mark.parametrize("positive", ["logloss", "beta_logloss", "pointwise_dpo", "token_mean"])
def test_ulma_raises_desirable_responses_and_binary_lowers_the_others(positive: str, negative: str) -> None:
    r = hand()
    total({"name": "ulma", "positive": positive, "negative": negative}, r).backward()
    gradient = r.token_logps.grad
    assert gradient is not None
    assert (gradient[[0, 1, 5]] < 0).all()
    # With beta 0.1 its reward of -0.07 lies below its score of 0.25, which continuous draws it to.
    assert (gradient[2:5] > 0).all() if negative == "binary" else (gradient[2:5] < 0).all()


def test_a_negative_kl_counts_as_none() -> None:
    assert value({"name": "kto"}, hand(-3.0)) == value({"name": "kto"}, hand(0.0))
    assert value({"name": "kto"}, hand(0.1)) != value({"name": "kto"}, hand(0.0))


def test_the_kl_has_no_gradient() -> None:
    kl = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    total({"name": "kto"}, replace(hand(), kl=kl)).backward()
    assert kl.grad is None


def test_rewards_are_those_of_the_docstring() -> None:
    r = hand()
    assert make_loss({"name": "kto", "beta": 0.5})(r).rewards.tolist() == pytest.approx([0.5, -1.0, -0.15])
    assert make_loss({"name": "apo_zero_unpaired", "beta": 0.5})(r).rewards.tolist() == pytest.approx([0.5, -1, -0.15])
    expected = [sigmoid(2 * u) for u in U]
    assert make_loss({"name": "ulma", "beta": 2.0})(r).rewards.tolist() == pytest.approx(expected)


def test_apo_zero_unpaired_on_both_responses_of_a_pair_is_half_of_apo_zero() -> None:
    pair = make([[Row((-1.0, -2.0), -4.0, True), Row((-3.0, -1.0, -2.0), -4.0, False)]])
    paired = value({"name": "apo_zero", "beta": 0.5}, pair)
    assert value({"name": "apo_zero_unpaired", "beta": 0.5}, pair) == pytest.approx(paired / 2, rel=1e-14)


@pytest.mark.parametrize("positive", ["logloss", "beta_logloss", "pointwise_dpo", "token_mean"])
@pytest.mark.parametrize("label", [True, False])
def test_an_empty_group_adds_nothing_to_ulma_and_has_a_finite_gradient(positive: str, label: bool) -> None:
    r = only(hand(), label)
    settings = {"name": "ulma", "positive": positive}
    output = make_loss(settings)(r)
    loss = output.total(counts(r))
    loss.backward()
    assert r.token_logps.grad is not None
    assert r.token_logps.grad.isfinite().all()
    full, empty = output.components if label else output.components[::-1]
    assert len(empty.values) == 0
    assert loss.item() == pytest.approx(full.weight * full.values.mean().item())


def test_ulma_counts_its_groups_apart() -> None:
    units = [c.unit for c in make_loss({"name": "ulma"})(hand()).components]
    assert units == [Unit.DESIRABLE, Unit.UNDESIRABLE]
    units = [c.unit for c in make_loss({"name": "ulma", "positive": "token_mean"})(hand()).components]
    assert units == [Unit.DESIRABLE_TOKEN, Unit.UNDESIRABLE]


def test_ulma_asks_for_scores_only_where_it_fits_them() -> None:
    needs = {"labels", "demonstrations", "reference"}
    assert make_loss({"name": "ulma"}).needs == needs
    assert make_loss({"name": "ulma", "negative": "continuous"}).needs == needs | {"scores"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *[({"name": name, "beta": 0.0}, "beta must be above 0") for name in ("kto", "apo_zero_unpaired", "ulma")],
        *[
            ({"name": name, key: 0.0}, f"{key} must be above 0")
            for name in ("kto", "apo_zero_unpaired")
            for key in ("desirable_weight", "undesirable_weight")
        ],
        ({"name": "ulma", "positive": "shifted_ce_loss"}, "positive must be one of logloss, beta_logloss"),
        ({"name": "ulma", "negative": "hinge"}, "negative must be binary or continuous"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_loss(settings)
    assert said in str(error.value)
