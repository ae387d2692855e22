"""Methods that train a ranker: reward_bt (a scalar head), rank_pointwise and rank_pairwise (a verdict in words)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from bed import Row, counts, make, softplus, total, value

from prefopt.batch import Responses, Unit
from prefopt.errors import UserError
from prefopt.losses import make_loss


def with_rewards(rewards: list[float], margins: list[float] | None = None) -> Responses:
    """Pairs of (chosen, rejected); the rewards are a leaf."""
    margins = margins or [0.0] * len(rewards)
    rows = [Row((-1.0,), margins=(margin,)) for margin in margins]
    r = make([rows[n : n + 2] for n in range(0, len(rows), 2)])
    return replace(r, rewards=torch.tensor(rewards, dtype=torch.float64, requires_grad=True))


# --- reward_bt ---


def test_equal_rewards_give_ln_2() -> None:
    assert value({"name": "reward_bt"}, with_rewards([0.7, 0.7])) == pytest.approx(math.log(2), rel=1e-15)


def test_reward_bt_by_hand() -> None:
    r = with_rewards([1.0, -0.5, 0.2, 0.6], [3.0, 1.0, 0.5, 0.2])
    plain = (softplus(-1.5) + softplus(0.4)) / 2
    centre = (0.5**2 + 0.8**2) / 2
    assert value({"name": "reward_bt"}, r) == pytest.approx(plain, rel=1e-14)
    assert value({"name": "reward_bt", "center": 0.3}, r) == pytest.approx(plain + 0.3 * centre, rel=1e-14)
    with_margin = (softplus(-(1.5 - 2.0)) + softplus(-(-0.4 - 0.3))) / 2
    assert value({"name": "reward_bt", "margin": "column"}, r) == pytest.approx(with_margin, rel=1e-14)


def test_a_step_down_reward_bt_raises_the_chosen_reward_and_lowers_the_rejected() -> None:
    r = with_rewards([1.0, -0.5])
    total({"name": "reward_bt"}, r).backward()
    assert r.rewards is not None
    assert r.rewards.grad is not None
    assert r.rewards.grad[0] == -r.rewards.grad[1]
    assert r.rewards.grad[0] < 0


@pytest.mark.parametrize("rewards", [[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]])
def test_reward_bt_is_finite_for_extreme_rewards(rewards: list[float]) -> None:
    r = with_rewards(rewards)
    loss = total({"name": "reward_bt", "center": 0.01}, r)
    loss.backward()
    assert loss.isfinite()
    assert r.rewards is not None
    assert r.rewards.grad is not None
    assert r.rewards.grad.isfinite().all()


def test_center_draws_the_sum_of_a_pairs_rewards_to_zero() -> None:
    r = with_rewards([3.0, 2.0])
    output = make_loss({"name": "reward_bt", "center": 0.1})(r)
    assert [c.name for c in output.components] == ["reward_bt", "center"]
    output.components[1].values.sum().backward()
    assert r.rewards is not None
    assert r.rewards.grad is not None
    assert r.rewards.grad.tolist() == [10.0, 10.0]


def test_reward_bt_uses_no_log_probabilities_and_logs_the_heads_rewards() -> None:
    r = with_rewards([1.0, -0.5])
    headed = replace(
        r,
        token_logps=torch.empty(0),
        row=torch.empty(0, dtype=torch.int64),
        logps=torch.full((2,), torch.nan, dtype=torch.float64),
    )
    output = make_loss({"name": "reward_bt", "center": 0.1})(headed)
    assert output.total(counts(r)).isfinite()
    assert output.rewards.tolist() == [1.0, -0.5]
    assert not output.rewards.requires_grad


def test_needs_of_reward_bt_follow_its_margin() -> None:
    assert make_loss({"name": "reward_bt"}).needs == {"pairs", "rewards"}
    assert make_loss({"name": "reward_bt", "margin": "column"}).needs == {"pairs", "rewards", "margins"}


# --- rankers in words ---


def verdicts(probabilities: list[float], labels: list[bool]) -> Responses:
    """One token each: the verdict, with this probability. No pairs."""
    rows = [Row((math.log(p),), label=label) for p, label in zip(probabilities, labels, strict=True)]
    return make([[row] for row in rows])


@pytest.mark.parametrize("name", ["rank_pointwise", "rank_pairwise"])
def test_a_ranker_is_the_cross_entropy_of_its_verdicts(name: str) -> None:
    r = verdicts([0.8, 0.3, 0.5], [True, False, True])
    assert r.pairs.shape == (0, 2)
    assert value({"name": name}, r) == pytest.approx(-(math.log(0.8) + math.log(0.3) + math.log(0.5)) / 3)
    (component,) = make_loss({"name": name})(r).components
    assert component.unit is Unit.RESPONSE


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


@pytest.mark.parametrize("name", ["rank_pointwise", "rank_pairwise"])
def test_rewards_of_a_ranker_are_the_log_odds_of_the_right_verdict(name: str) -> None:
    rewards = make_loss({"name": name})(verdicts([0.8, 0.3], [True, False])).rewards
    assert rewards.tolist() == pytest.approx([log_odds(0.8), log_odds(0.3)], rel=1e-12)


def test_a_verdict_of_two_tokens_counts_with_both() -> None:
    r = make([[Row((-0.2, -0.3), label=True)], [Row((-0.4, -0.5), label=False)]])
    right = [log_odds(math.exp(-0.5)), log_odds(math.exp(-0.9))]
    for name in ("rank_pointwise", "rank_pairwise"):
        assert value({"name": name}, r) == pytest.approx((0.5 + 0.9) / 2)
        assert make_loss({"name": name})(r).rewards.tolist() == pytest.approx(right)


@pytest.mark.parametrize("name", ["rank_pointwise", "rank_pairwise"])
@pytest.mark.parametrize("logp", [0.0, -1e-15, -1e4])
def test_rewards_of_a_ranker_are_finite_when_it_is_certain(name: str, logp: float) -> None:
    r = make([[Row((logp,), label=True)], [Row((logp,), label=False)]])
    assert make_loss({"name": name})(r).rewards.isfinite().all()


def test_needs_of_the_rankers() -> None:
    assert make_loss({"name": "rank_pointwise"}).needs == {"labels", "verdicts"}
    assert make_loss({"name": "rank_pairwise"}).needs == {"pairs", "comparisons"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "reward_bt", "center": -0.1}, "center must be 0 or more"),
        ({"name": "reward_bt", "margin": "scores"}, "margin must be none or column"),
        ({"name": "rank_pairwise", "beta": 0.1}, "rank_pairwise has no such setting"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_loss(settings)
    assert said in str(error.value)
