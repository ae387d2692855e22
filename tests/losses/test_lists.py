"""Methods that learn from rankings and lists of candidates: plackett_luce_dpo, rrhf, slic."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch
from bed import Row, make, sigmoid, softplus, total, two, value

from prefopt.batch import Responses
from prefopt.errors import UserError
from prefopt.losses import make_loss


def three(scores: tuple[float, float, float] = (3.0, 2.0, 1.0)) -> Responses:
    """Sums -3, -2 and -6 over 2, 1 and 3 tokens, log-ratios +1, -1 and -2; prompt of 4 tokens."""
    rows = [
        Row((-1.0, -2.0), -4.0, score=scores[0]),
        Row((-2.0,), -1.0, score=scores[1]),
        Row((-3.0, -1.0, -2.0), -4.0, score=scores[2]),
    ]
    return make([rows])


def log_sum_exp(*values: float) -> float:
    return math.log(sum(math.exp(v) for v in values))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "plackett_luce_dpo", "beta": 0.5}, [0.5, -0.5, -1.0]),
        ({"name": "rrhf"}, [-1.5, -2.0, -2.0]),
        ({"name": "slic"}, [-3.0, -2.0, -6.0]),
    ],
)
def test_rewards_are_those_of_the_docstring(settings: dict, expected: list[float]) -> None:
    assert make_loss(settings)(three()).rewards.tolist() == pytest.approx(expected, rel=1e-15)


# --- plackett_luce_dpo ---


def test_two_responses_make_plackett_luce_dpo_exactly_dpo() -> None:
    settings = {"beta": 0.3}
    for reference in ((-4.0, -4.0), (-300.0, -4.0), (-4.0, -9000.0), (-3.0, -6.0)):
        a, b = (two([-1.0, -2.0], [-3.0, -1.0, -2.0], reference) for _ in range(2))
        listed, paired = total({"name": "plackett_luce_dpo", **settings}, a), total({"name": "dpo", **settings}, b)
        assert listed.item() == paired.item()
        listed.backward()
        paired.backward()
        assert a.token_logps.grad is not None
        assert b.token_logps.grad is not None
        assert a.token_logps.grad.tolist() == b.token_logps.grad.tolist()


@pytest.mark.parametrize("k", [2, 3, 5])
def test_k_responses_at_the_reference_give_ln_k_factorial(k: int) -> None:
    rows = [Row((-1.0, -1.0 - n), -2.0 - n, score=float(-n)) for n in range(k)]
    assert value({"name": "plackett_luce_dpo"}, make([rows])) == pytest.approx(math.log(math.factorial(k)), rel=1e-14)


def test_plackett_luce_dpo_by_hand() -> None:
    first = log_sum_exp(0.5, -0.5, -1.0) - 0.5
    second = log_sum_exp(-0.5, -1.0) + 0.5
    assert value({"name": "plackett_luce_dpo", "beta": 0.5}, three()) == pytest.approx(first + second, rel=1e-14)


def test_tied_responses_stand_in_each_others_denominators() -> None:
    first = log_sum_exp(0.5, -0.5, -1.0) - 0.5
    tied = 2 * log_sum_exp(-0.5, -1.0) + 0.5 + 1.0
    got = value({"name": "plackett_luce_dpo", "beta": 0.5}, three((3.0, 1.0, 1.0)))
    assert got == pytest.approx(first + tied, rel=1e-14)


@pytest.mark.parametrize("name", ["plackett_luce_dpo", "rrhf", "slic"])
def test_the_mean_is_over_prompts_which_do_not_see_each_other(name: str) -> None:
    settings = {"name": name} | ({"calibration": "list_rank"} if name == "slic" else {})
    rows = [Row((-1.0, -2.0), -4.0, score=1.0), Row((-2.0,), -1.0, score=5.0), Row((-7.0, -1.0), -1.0, score=3.0)]
    other = [Row((-2.0, -2.0), -4.0, score=9.0), Row((-0.5,), -1.0, score=2.0)]
    both = value(settings, replace(make([rows, other]), best=torch.tensor([1, 3])))
    apart = [value(settings, replace(make([e]), best=torch.tensor([b]))) for e, b in ((rows, 1), (other, 0))]
    assert both == pytest.approx(sum(apart) / 2, rel=1e-14)


def test_a_step_down_plackett_luce_dpo_raises_the_first_and_lowers_the_last() -> None:
    r = three()
    total({"name": "plackett_luce_dpo"}, r).backward()
    assert r.token_logps.grad is not None
    assert (r.token_logps.grad[:2] < 0).all()
    assert (r.token_logps.grad[3:] > 0).all()


# --- rrhf ---

RRHF = [
    # p: -1.5, -2, -2: every two are in order or equal, but the tie has no margin to miss.
    ({}, 0.0 + 3.0),
    ({"sft": "mean_response"}, 1.5),
    ({"sft": "mean_padded"}, 3.0 / 7),
    # p: -3, -2, -6: the second is 1 above the first.
    ({"length_penalty": 0.0}, 1.0 + 3.0),
    ({"length_penalty": 0.0, "rank_weight": 100.0}, 100.0 + 3.0),
    # p: -3/7, -2/7, -6/7
    ({"denominator": "padded"}, 1 / 7 + 3.0),
    ({"denominator": "padded", "length_penalty": 2.0}, 1 / 49 + 3.0),
]


@pytest.mark.parametrize(("settings", "expected"), RRHF)
def test_rrhf_by_hand(settings: dict, expected: float) -> None:
    assert value({"name": "rrhf", **settings}, three()) == pytest.approx(expected, rel=1e-14)


def test_rrhf_adds_up_all_pairs_of_a_prompt_that_are_in_the_wrong_order() -> None:
    r = three((1.0, 2.0, 3.0))  # sums -3, -2, -6, the worst first
    assert value({"name": "rrhf", "length_penalty": 0.0}, replace(r, best=torch.tensor([2]))) == pytest.approx(
        3 + 4 + 6
    )


def test_rrhf_does_not_compare_equal_scores() -> None:
    assert value({"name": "rrhf", "length_penalty": 0.0}, three((2.0, 2.0, 1.0))) == pytest.approx(3.0)


def test_rrhf_pads_each_prompt_to_its_own_longest_response() -> None:
    rows = [Row((-1.0, -2.0), score=2.0), Row((-0.5,), score=1.0)]
    r = replace(make([rows, [*rows, Row((-9.0,) * 5, score=0.0)]]), prompt_lengths=torch.tensor([4, 10]))
    assert make_loss({"name": "rrhf", "denominator": "padded"})(r).rewards.tolist() == pytest.approx(
        [-3 / 6, -0.5 / 6, -3 / 15, -0.5 / 15, -45 / 15]
    )


def test_a_step_down_rrhf_raises_the_better_of_two_in_the_wrong_order() -> None:
    r = three()
    total({"name": "rrhf", "length_penalty": 0.0}, r).backward()
    assert r.token_logps.grad is not None
    assert r.token_logps.grad.tolist() == [-2, -2, 1, 0, 0, 0]


# --- slic ---

S = (-3.0, -2.0, -6.0)
P = [math.exp(s) / sum(map(math.exp, S)) for s in S]

SLIC = [
    # pairs: the first with each other one
    ({"calibration": "rank", "beta": 5.0}, ((5 + 3 - 2) + (5 + 3 - 6)) / 2),
    ({"calibration": "rank"}, ((1 + 3 - 2) + 0) / 2),
    ({"calibration": "margin", "beta": 4.0}, ((4 + 3 - 2) + (8 + 3 - 6)) / 2),
    ({"calibration": "list_rank", "beta": 4.0}, (4 + 3 - 2) + (8 + 3 - 6) + 0),
    ({"calibration": "list_rank", "beta": 5.0}, (5 + 3 - 2) + (10 + 3 - 6) + (5 + 2 - 6)),
    ({"calibration": "reward"}, -(3 * P[0] + 2 * P[1] + 1 * P[2])),
]


@pytest.mark.parametrize(("settings", "expected"), SLIC)
def test_calibration_by_hand(settings: dict, expected: float) -> None:
    got = value({"name": "slic", "regulariser": "none", **settings}, three())
    assert got == pytest.approx(expected, rel=1e-14)


def test_tied_candidates_share_a_place() -> None:
    settings = {"name": "slic", "calibration": "list_rank", "regulariser": "none", "beta": 5.0}
    # The two ties are both one place below the first, and are not compared.
    assert value(settings, three((3.0, 1.0, 1.0))) == pytest.approx((5 + 3 - 2) + (5 + 3 - 6))
    # The last is two places below both.
    assert value(settings, three((3.0, 3.0, 1.0))) == pytest.approx((10 + 3 - 6) + (10 + 2 - 6))


@pytest.mark.parametrize(("target", "row"), [("best", 0), ("y_ref", 2)])
def test_regulariser_by_hand(target: str, row: int) -> None:
    r = three()
    assert r.reverse_kl is not None
    assert r.forward_kl is not None
    of_row = r.row == row
    expected = {
        "cross_entropy": -S[row],
        "kl_policy_to_finetuned": r.reverse_kl[of_row].sum().item(),
        "kl_finetuned_to_policy": r.forward_kl[of_row].sum().item(),
    }
    for regulariser, by_hand in expected.items():
        settings = {"name": "slic", "regulariser": regulariser, "target": target, "lam": 0.7}
        calibration, term = make_loss(settings)(r).components
        assert (calibration.weight, term.weight) == (1.0, 0.7)
        assert term.values.tolist() == pytest.approx([by_hand])


def test_the_y_ref_target_is_no_candidate() -> None:
    settings = {"name": "slic", "target": "y_ref", "calibration": "list_rank", "beta": 5.0}
    r = three()  # the target is the last row
    assert make_loss(settings)(r).components[0].values.tolist() == pytest.approx([5 + 3 - 2])
    as_reward = make_loss({"name": "slic", "target": "y_ref", "calibration": "reward"})(r).components[0]
    p = sigmoid(-1)
    assert as_reward.values.tolist() == pytest.approx([-(3 * p + 2 * (1 - p))])
    # Where it stands among the scores makes no difference.
    top = replace(r, scores=torch.tensor([3.0, 2.0, 9.0], dtype=torch.float64))
    assert value(settings, top) == value(settings, r)


def test_slic_reward_moves_probability_to_the_best_candidate() -> None:
    r = three()
    total({"name": "slic", "calibration": "reward", "regulariser": "none"}, r).backward()
    assert r.token_logps.grad is not None
    assert (r.token_logps.grad[:2] < 0).all()
    assert (r.token_logps.grad[2:] > 0).all()


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        ({}, {"pairs"}),
        ({"calibration": "margin"}, {"pairs", "scores"}),
        ({"calibration": "list_rank", "target": "y_ref"}, {"ranking", "targets"}),
        ({"calibration": "reward", "regulariser": "kl_policy_to_finetuned"}, {"ranking", "reverse_kl"}),
        ({"regulariser": "kl_finetuned_to_policy"}, {"pairs", "forward_kl"}),
        ({"regulariser": "none"}, {"pairs"}),
    ],
)
def test_needs_of_slic_follow_its_settings(settings: dict, needs: set[str]) -> None:
    assert make_loss({"name": "slic", **settings}).needs == needs


def test_a_number_of_slic_that_is_left_out_is_the_same_run_as_its_default() -> None:
    stated = make_loss({"name": "slic", "beta": 1.0, "lam": 0.1})
    assert asdict(make_loss({"name": "slic"})) == asdict(stated)  # type: ignore[call-overload]
    without = make_loss({"name": "slic", "calibration": "reward", "regulariser": "none"})
    assert make_loss({"name": "slic", **asdict(without)}) == without  # type: ignore[call-overload]


def test_slic_on_pairs_is_slic_hf_with_the_same_numbers() -> None:
    r = two([-1.0, -2.0], [-3.0, -1.0, -2.0], (-4.0, -4.0))
    settings = {"beta": 4.0, "lam": 0.3}
    assert value({"name": "slic", **settings}, r) == value({"name": "slic_hf", "delta": 4.0, "lam": 0.3}, r)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "plackett_luce_dpo", "beta": 0.0}, "beta must be above 0"),
        ({"name": "rrhf", "length_penalty": -1.0}, "length_penalty must be 0 or more"),
        ({"name": "rrhf", "rank_weight": 0.0}, "at 0 it is loss=sft"),
        ({"name": "rrhf", "denominator": "prompt"}, "denominator must be response or padded"),
        ({"name": "rrhf", "sft": "mean"}, "sft must be sum, mean_response or mean_padded"),
        ({"name": "rrhf", "denominator": "padded", "length_penalty": 0.0}, "no effect with length_penalty=0"),
        ({"name": "slic", "calibration": "hinge"}, "calibration must be one of rank, margin"),
        ({"name": "slic", "regulariser": "kl"}, "regulariser must be one of cross_entropy"),
        ({"name": "slic", "target": "chosen"}, "target must be best or y_ref"),
        ({"name": "slic", "beta": 0.0}, "beta must be above 0"),
        ({"name": "slic", "lam": -0.1}, "lam must be above 0"),
        ({"name": "slic", "calibration": "reward", "beta": 1.0}, "beta has no effect with calibration=reward"),
        ({"name": "slic", "regulariser": "none", "lam": 0.1}, "lam has no effect with regulariser=none"),
        ({"name": "slic", "regulariser": "none", "target": "y_ref"}, "target has no effect with regulariser=none"),
    ],
)
def test_a_setting_without_effect_or_out_of_range_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_loss(settings)
    assert said in str(error.value)


def test_plackett_luce_dpo_keeps_its_digits_where_the_order_is_certain() -> None:
    r = two([-1.0], [-1.0], (-801.0, -1.0))  # log-ratio 800: e^-80 is left at beta 0.1
    assert value({"name": "plackett_luce_dpo"}, r) == pytest.approx(softplus(-80.0), rel=1e-12)
