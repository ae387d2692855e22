"""Pairwise methods with less plain needs: values by hand, signs of gradients, what each is known for, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from bed import Row, counts, coupled, make, sigmoid, softplus, total, two, value
from torch import Tensor

from prefopt.batch import CoupledLoss, LossOutput, Responses, WholeStep
from prefopt.errors import UserError
from prefopt.losses import make_loss
from prefopt.losses.modpo import MODPO
from prefopt.losses.numerics import STEEPEST, exp_or_line
from prefopt.losses.rso import RSO
from prefopt.losses.slic_hf import SLiCHF
from prefopt.losses.sppo import SPPO

LN2 = math.log(2)


def hand() -> Responses:
    """Sums -3 and -6, log-ratios +1 and -2, divergences .25 and .44, mean log p - collision -.75 and -1."""
    return two([-1.0, -2.0], [-3.0, -1.0, -2.0], (-4.0, -4.0))


def three() -> Responses:
    """Pairs of sums (-1, -4), (-3, -2), (-2, -2) against (-2, -2), (-5, -1), (-1, -3)."""
    sums = [(-1.0, -4.0, -2.0, -2.0), (-3.0, -2.0, -5.0, -1.0), (-2.0, -2.0, -1.0, -3.0)]
    return make([[Row((w,), ref_w), Row((rejected,), ref_l)] for w, rejected, ref_w, ref_l in sums])


def gradient(settings: dict, r: Responses) -> Tensor:
    """Of the loss with respect to each token's log-probability."""
    (found,) = torch.autograd.grad(total(settings, r), r.token_logps, retain_graph=True)
    return found


def output(settings: dict, r: Responses) -> LossOutput:
    return make_loss(settings)(coupled(settings, r))


AT_REFERENCE = [
    ("rso", {}, LN2),
    ("rso", {"form": "hinge_norm"}, 1.0),
    ("ld_dpo", {}, LN2),
    ("f_dpo", {}, LN2),
    ("f_dpo", {"divergence": "forward_kl"}, LN2),
    ("f_dpo", {"divergence": "alpha"}, LN2),
    ("wpo", {}, LN2 * math.exp(-0.75 - 1.0)),
    ("aot", {}, LN2),
    ("aot", {"variant": "unpaired"}, LN2),
    ("sppo", {"beta": 0.5}, 2.0),
    ("sppo", {"beta": 0.5, "variant": "soft"}, 1.0),
    ("bco_pair", {}, 2 * LN2),
    ("bco_pair", {"shift": "zero"}, 2 * LN2),
    ("discopop", {}, (LN2 + 1) / 2),
    ("dpop", {}, LN2),
    ("modpo", {}, LN2),
    ("modpo", {"form": "hinge"}, 1.0),
]


@pytest.mark.parametrize(("name", "settings", "expected"), AT_REFERENCE)
def test_value_when_policy_equals_reference_and_lengths_are_equal(name: str, settings: dict, expected: float) -> None:
    r = two([-1.0, -2.0], [-3.0, -1.0], (-3.0, -4.0))
    assert value({"name": name, **settings}, r) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("variant", ["tdpo1", "tdpo2"])
def test_tdpo_is_ln_2_where_nothing_diverges(variant: str) -> None:
    r = two([-1.0, -2.0], [-3.0, -1.0], (-3.0, -4.0))
    still = replace(r, forward_kl=torch.zeros_like(r.token_logps))
    assert value({"name": "tdpo", "variant": variant}, still) == pytest.approx(LN2, rel=1e-14)


BY_HAND = [
    ("rso", {"gamma": 0.5}, softplus(-1.5)),
    ("rso", {"gamma": 0.1, "form": "hinge_norm"}, 1 - 0.3),
    ("rso", {"gamma": 0.5, "form": "hinge_norm"}, 0.0),
    ("rso", {"gamma": 0.2, "form": "hinge"}, 1 - 0.2 * 3),
    # The third rejected token is -2 + 4/3 above its reference and counts a quarter.
    ("ld_dpo", {"beta": 0.5, "ld_alpha": 0.25}, softplus(-0.5 * (1 + 4 / 3 + 2 / 3 / 4))),
    ("ld_dpo", {"beta": 0.5, "ld_alpha": 0.0}, softplus(-0.5 * (1 + 4 / 3))),
    ("f_dpo", {"beta": 0.5}, softplus(-0.5 * (softplus(2.0) - softplus(-1.0)))),
    ("f_dpo", {"beta": 0.5, "divergence": "forward_kl"}, softplus(-0.5 * (math.exp(2) - math.exp(-1)))),
    (
        "f_dpo",
        {"beta": 0.5, "divergence": "alpha", "alpha": 0.25},
        softplus(-0.5 * (math.exp(0.5) - math.exp(-0.25)) / 0.25),
    ),
    ("wpo", {"beta": 0.5}, math.exp(-1.75) * softplus(-1.5)),
    (
        "wpo",
        {"beta": 0.5, "label_smoothing": 0.1, "clamp": "none"},
        math.exp(-1.75) * (0.9 * softplus(-1.5) + 0.1 * softplus(1.5)),
    ),
    ("sppo", {"beta": 0.25}, (1 - 2) ** 2 + (-2 + 2) ** 2),
    ("bco_pair", {"beta": 0.5}, 2 * softplus(-0.75)),
    ("bco_pair", {"beta": 0.5, "shift": "zero"}, softplus(-0.5) + softplus(-1.0)),
    ("discopop", {"beta": 0.1, "tau": 0.5}, sigmoid(-0.6) * softplus(-0.3) + sigmoid(0.6) * math.exp(-0.3)),
    ("tdpo", {"beta": 0.5, "variant": "tdpo1"}, softplus(-0.5 * (3 - (0.44 - 0.25)))),
    ("tdpo", {"beta": 0.5, "alpha": 0.8}, softplus(-0.5 * (3 - 0.8 * (0.44 - 0.25)))),
    ("dpop", {"beta": 0.5}, softplus(-1.5)),
    (
        "unlikelihood",
        {"lam": 0.5},
        1.5 - 0.5 * (math.log1p(-math.exp(-3)) + math.log1p(-math.exp(-1)) + math.log1p(-math.exp(-2))) / 3,
    ),
    ("simpo", {"beta": 2.0, "gamma_beta_ratio": 0.0}, softplus(-1.0)),
    ("simpo", {"beta": 0.5, "gamma_beta_ratio": 0.0, "normalisation": "none"}, softplus(-1.5)),
    ("simpo", {"beta": 0.5, "gamma_beta_ratio": 1.0, "normalisation": "none"}, softplus(-1.0)),
]


@pytest.mark.parametrize(("name", "settings", "expected"), BY_HAND)
def test_value_by_hand(name: str, settings: dict, expected: float) -> None:
    assert value({"name": name, **settings}, hand()) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "expected"), [({"name": "dpop", "beta": 0.5}, [0.5, -1.0]), ({"name": "unlikelihood"}, [-1.5, -2.0])]
)
def test_rewards_are_those_of_the_docstring(settings: dict, expected: list[float]) -> None:
    assert output(settings, hand()).rewards.tolist() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("name", "differences"),
    [("paired", [-1.0 + 4.0, 0.0 - 0.0, 3.0 - 2.0]), ("unpaired", [-1.0 + 2.0, 1.0 + 1.0, 2.0 - 1.0])],
)
def test_aot_compares_the_smallest_with_the_smallest(name: str, differences: list[float]) -> None:
    settings = {"name": "aot", "variant": name, "beta": 0.5}
    assert value(settings, three()) == pytest.approx(sum(softplus(-0.5 * d) for d in differences) / 3, rel=1e-12)
    smoothed = sum(0.8 * softplus(-0.5 * d) + 0.2 * softplus(0.5 * d) for d in differences) / 3
    assert value({**settings, "label_smoothing": 0.2}, three()) == pytest.approx(smoothed, rel=1e-12)


def test_sppo_soft_is_drawn_to_the_probabilities_and_half_of_hard_where_they_are_certain() -> None:
    soft = {"name": "sppo", "variant": "soft", "beta": 0.5}
    assert value(soft, hand()) == pytest.approx(value({"name": "sppo", "beta": 0.5}, hand()) / 2, rel=1e-14)
    unsure = replace(hand(), scores=torch.tensor([0.75, 0.25], dtype=torch.float64))
    assert value(soft, unsure) == pytest.approx(((1 - 0.5) ** 2 + (-2 + 0.5) ** 2) / 2, rel=1e-14)


def test_modpo_by_hand_with_one_and_with_two_margins() -> None:
    def pair(chosen: tuple[float, ...], rejected: tuple[float, ...]) -> Responses:
        rows = (Row((-1.0, -2.0), -4.0, margins=chosen), Row((-3.0, -3.0), -4.0, margins=rejected))
        return make([rows])

    one = {"name": "modpo", "beta": 0.5, "weights": [0.4, 0.6]}
    difference = (0.5 - 0.6 * 0.3) / 0.4 - (-1.0 - 0.6 * 1.5) / 0.4
    assert value(one, pair((0.3,), (1.5,))) == pytest.approx(softplus(-difference), rel=1e-12)
    two_margins = {"name": "modpo", "beta": 0.5, "weights": [2.0, 0.6, 0.5], "form": "hinge"}
    difference = (0.5 - 0.6 * 0.3 - 0.5 * 1.0) / 2 - (-1.0 - 0.6 * 1.5 + 0.5 * 2.0) / 2
    assert value(two_margins, pair((0.3, 1.0), (1.5, -2.0))) == pytest.approx(1 - difference, rel=1e-12)


def test_modpo_asks_no_more_than_its_hinge() -> None:
    enough = make([[Row((-1.0,), -3.0), Row((-3.0,), -2.0)]])  # 0.5 * (2 + 1) / 0.5 nats of reward apart
    assert value({"name": "modpo", "beta": 0.5, "form": "hinge"}, enough) == 0


SIGNED = [
    ("rso", {}),
    ("rso", {"form": "hinge_norm"}),
    ("rso", {"form": "hinge"}),
    ("ld_dpo", {}),
    ("f_dpo", {}),
    ("f_dpo", {"divergence": "forward_kl"}),
    ("f_dpo", {"divergence": "alpha"}),
    ("wpo", {}),
    ("aot", {}),
    ("aot", {"variant": "unpaired"}),
    ("sppo", {}),
    ("sppo", {"variant": "soft"}),
    ("bco_pair", {}),
    ("bco_pair", {"shift": "zero"}),
    ("tdpo", {}),
    ("tdpo", {"variant": "tdpo1"}),
    ("dpop", {}),
    ("modpo", {}),
    ("modpo", {"form": "hinge", "beta": 0.01}),
    ("unlikelihood", {}),
    ("simpo", {"normalisation": "none", "gamma_beta_ratio": 0.0}),
]


@pytest.mark.parametrize(("name", "settings"), SIGNED)
def test_a_step_down_the_loss_raises_the_chosen_and_lowers_the_rejected(name: str, settings: dict) -> None:
    found = gradient({"name": name, **settings}, hand())
    assert (found[:2] < 0).all()
    assert (found[2:] > 0).all()


@pytest.mark.parametrize(("name", "settings"), SIGNED)
def test_every_variant_is_finite_with_a_finite_gradient(name: str, settings: dict) -> None:
    for low in (-1e-8, -1.0, -104.0, -1e4):
        for chosen, rejected in ((low, -1.0), (-1.0, low), (low, low)):
            r = two([chosen] * 3, [rejected] * 2, (-5.0, -5.0))
            assert total({"name": name, **settings}, r).isfinite()
            assert gradient({"name": name, **settings}, r).isfinite().all()


# --- what each method is known for ---


def test_rso_names_what_is_dpo_and_what_is_slic() -> None:
    r = hand()
    assert value({"name": "rso", "gamma": 0.1}, r) == value({"name": "dpo", "beta": 0.1}, r)
    hinge_norm = value({"name": "rso", "gamma": 0.1, "form": "hinge_norm"}, r)
    assert hinge_norm == value({"name": "dpo_hinge", "beta": 0.1}, r)
    slic = value({"name": "slic_hf", "delta": 10.0, "lam": 0.0}, r)
    assert value({"name": "rso", "gamma": 0.1, "form": "hinge"}, r) == pytest.approx(0.1 * slic, rel=1e-14)


def test_rso_hinge_needs_no_reference() -> None:
    assert RSO().needs == {"pairs", "reference"}
    assert RSO(form="hinge").needs == {"pairs"}
    assert output({"name": "rso", "form": "hinge"}, replace(hand(), reference_logps=None)).rewards.isfinite().all()


def test_ld_dpo_weighs_tokens_beyond_the_shorter_response_by_ld_alpha() -> None:
    found = gradient({"name": "ld_dpo", "ld_alpha": 0.25}, hand())
    assert found[4] == pytest.approx(0.25 * found[3].item(), rel=1e-14)
    assert found[2:4].tolist() == pytest.approx([-found[0].item()] * 2, rel=1e-14)
    assert gradient({"name": "ld_dpo", "ld_alpha": 0.0}, hand())[4] == 0


def test_ld_dpo_is_dpo_for_responses_of_one_length() -> None:
    r = two([-1.0, -2.0], [-3.0, -1.0], (-4.0, -3.0))
    assert value({"name": "ld_dpo", "ld_alpha": 0.3}, r) == pytest.approx(value({"name": "dpo"}, r), rel=1e-14)


def test_ld_dpo_has_another_minimum_length_in_each_pair_of_a_response() -> None:
    rows = [Row((-1.5, -1.5), -4.0), Row((-3.0, -1.0, -2.0), -4.5), Row((-0.5,), -1.5), Row((-2.0, -2.0), -3.0)]
    pairs = [(0, 1), (0, 2), (1, 2)]  # the fourth is in none
    settings = {"name": "ld_dpo", "beta": 0.5, "ld_alpha": 0.3}
    together = output(settings, make([rows], pairs))
    alone = [output(settings, make([[rows[w], rows[rejected]]])) for w, rejected in pairs]
    assert together.components[0].values.tolist() == pytest.approx(
        [o.components[0].values.item() for o in alone], rel=1e-14
    )
    rewards = [o.rewards.tolist() for o in alone]
    expected = [
        (rewards[0][0] + rewards[1][0]) / 2,
        (rewards[0][1] + rewards[2][0]) / 2,
        (rewards[1][1] + rewards[2][1]) / 2,
        0.5 * (-4.0 + 3.0),
    ]
    assert rewards[0][0] != pytest.approx(rewards[1][0])
    assert together.rewards.tolist() == pytest.approx(expected, rel=1e-14)


def test_ld_dpo_finds_the_tokens_of_each_pair_among_those_of_all_responses() -> None:
    one = [Row((-1.0, -2.0), -4.0), Row((-3.0, -1.0, -2.0), -4.0)]  # per token 1, 0 and -5/3, 1/3, -2/3
    other = [Row((-0.5, -2.5, -0.1), -2.0), Row((-0.7, -1.1), -3.0)]  # 1/6, -11/6, 17/30 and 0.8, 0.4
    in_no_pair = Row(tuple(-0.1 * n for n in range(1, 20)), -5.0)
    r = make([one, [*other, in_no_pair]], pairs=[(0, 1), (2, 3)])
    x = [1 - (-4 / 3 - 1 / 3), (-5 / 3 + 17 / 60) - 1.2]
    values = output({"name": "ld_dpo", "beta": 0.5, "ld_alpha": 0.5}, r).components[0].values
    assert values.tolist() == pytest.approx([softplus(-0.5 * each) for each in x], rel=1e-12)


def test_a_response_that_is_not_finite_spoils_only_its_own_pair_under_ld_dpo() -> None:
    bad = [Row((-math.inf, -1.0), -4.0), Row((-3.0,), -4.0)]
    good = [Row((-1.0, -2.0), -4.0), Row((-3.0, -1.0, -2.0), -4.0)]
    values = output({"name": "ld_dpo"}, make([bad, good])).components[0].values
    assert not values[0].isfinite()
    assert values[1].item() == pytest.approx(value({"name": "ld_dpo"}, make([good])), rel=1e-14)


def test_f_dpo_tells_the_reverse_kl_from_the_others_where_policy_leaves_the_reference() -> None:
    # They agree to first order at the reference; the forward KL lets a chosen response go that has risen above it.
    at_reference, risen = two([-10.0], [-1.0], (-10.0, -1.0)), two([-5.0], [-1.0], (-10.0, -1.0))
    forward_kl, dpo = {"name": "f_dpo", "divergence": "forward_kl"}, {"name": "dpo"}
    assert gradient(forward_kl, at_reference).tolist() == pytest.approx(gradient(dpo, at_reference).tolist(), rel=1e-12)
    assert gradient(forward_kl, risen)[0] > -0.001
    assert gradient(dpo, risen)[0] < -0.03


@pytest.mark.parametrize("settings", [{"divergence": "forward_kl"}, {"divergence": "alpha"}, {"divergence": "js"}])
def test_f_dpo_keeps_a_gradient_where_its_exponential_would_overflow(settings: dict) -> None:
    r = two([-5000.0], [-1.0], (-3.0, -4.0))
    found = gradient({"name": "f_dpo", **settings}, r)
    assert output({"name": "f_dpo", **settings}, r).rewards.isfinite().all()
    assert found.isfinite().all()
    assert found[0] < 0
    assert found.float().square().isfinite().all()


def test_exp_or_line_is_exp_and_then_its_tangent() -> None:
    x = torch.tensor([-3.0, 0.0, STEEPEST, STEEPEST + 2.0, 1e4], dtype=torch.float64, requires_grad=True)
    y = exp_or_line(x)
    top = math.exp(STEEPEST)
    expected = [math.exp(-3.0), 1.0, top, 3 * top, (1 + 1e4 - STEEPEST) * top]
    assert y.tolist() == pytest.approx(expected, rel=1e-12)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad[3:].tolist() == pytest.approx([top, top], rel=1e-12)


def test_wpo_weighs_without_a_gradient_and_at_most_with_one() -> None:
    r = hand()
    weight = math.exp(-1.75)
    expected = weight * gradient({"name": "dpo", "beta": 0.01}, r)
    assert gradient({"name": "wpo"}, r).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    own = replace(r, collision=r.token_logps.detach())  # as likely as a draw of the policy: plain DPO
    assert value({"name": "wpo"}, own) == pytest.approx(value({"name": "dpo", "beta": 0.01}, own), rel=1e-14)
    likely = replace(r, collision=r.token_logps.detach() - 1)
    assert value({"name": "wpo"}, likely) == pytest.approx(value({"name": "wpo"}, own), rel=1e-14)
    unclamped = value({"name": "wpo", "clamp": "none"}, likely)
    assert unclamped == pytest.approx(math.exp(2) * value({"name": "wpo"}, own), rel=1e-14)


def test_the_collision_has_no_gradient_under_wpo() -> None:
    collision = torch.full((5,), -1.0, dtype=torch.float64, requires_grad=True)
    total({"name": "wpo"}, replace(hand(), collision=collision)).backward()
    assert collision.grad is None


@pytest.mark.parametrize("variant", ["paired", "unpaired"])
def test_aot_of_one_pair_is_dpo(variant: str) -> None:
    r = hand()
    assert value({"name": "aot", "variant": variant}, r) == pytest.approx(value({"name": "dpo"}, r), rel=1e-14)
    smoothed = {"label_smoothing": 0.2}
    cdpo = value({"name": "cdpo", **smoothed}, r)
    assert value({"name": "aot", "variant": variant, **smoothed}, r) == pytest.approx(cdpo, rel=1e-14)


def test_aot_unpaired_does_not_see_who_was_paired_with_whom() -> None:
    r = make(five())
    chosen, rejected = r.pairs.unbind(1)
    mixed = replace(r, pairs=torch.stack((chosen, rejected.roll(1)), 1))
    for variant, same in (("unpaired", True), ("paired", False)):
        settings = {"name": "aot", "variant": variant}
        assert (value(settings, mixed) == pytest.approx(value(settings, r), rel=1e-12)) is same
        assert torch.allclose(gradient(settings, mixed), gradient(settings, r), rtol=1e-12) is same


def five() -> list[list[Row]]:
    """Examples of one to three pairs, two of them equal, so that ranks have a tie."""
    tie = [Row((-1.0, -0.5), -2.0), Row((-2.5,), -2.0)]
    return [
        [Row((-1.0, -3.0), -3.5), Row((-2.0,), -2.5), Row((-4.0, -1.0), -3.0)],
        tie,
        [Row((-0.3, -0.2, -2.0), -4.0), Row((-6.0,), -4.0), Row((-0.1,), -3.0), Row((-1.0, -1.0), -1.5)],
        tie,
        [Row((-5.0,), -2.0), Row((-1.0, -0.5), -3.0)],
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "aot"},
        {"name": "aot", "variant": "unpaired"},
        {"name": "aot", "variant": "unpaired", "label_smoothing": 0.2, "beta": 1.0},
        {"name": "bco_pair", "beta": 0.5},
    ],
)
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_step_cut_in_two_gives_the_loss_and_the_gradient_of_the_whole(settings: dict, cut: int) -> None:
    examples = five()
    whole, parts = make(examples), [make(examples[:cut]), make(examples[cut:])]
    loss: CoupledLoss = make_loss(settings)  # type: ignore[assignment]
    observed = [loss.observe(part) for part in parts]
    values = torch.cat(observed)
    starts = [0, len(observed[0])]
    totals = [
        loss(replace(part, whole_step=WholeStep(values, slice(start, start + len(own))))).total(counts(whole))
        for part, own, start in zip(parts, observed, starts, strict=True)
    ]
    assert sum(totals).item() == pytest.approx(value(settings, whole), rel=1e-13)  # type: ignore[union-attr]
    of_parts = torch.cat(
        [torch.autograd.grad(loss_of_part, part.token_logps)[0] for loss_of_part, part in zip(totals, parts)]
    )
    assert of_parts.tolist() == pytest.approx(gradient(settings, whole).tolist(), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("variant", ["paired", "unpaired"])
def test_the_gradient_of_aot_is_that_of_the_sorted_sums(variant: str) -> None:
    r = make(five())
    assert r.reference_logps is not None
    (w, rejected), (ref_w, ref_l) = r.paired(r.logps), r.paired(r.reference_logps)
    a, b = (w - rejected, ref_w - ref_l) if variant == "paired" else (w - ref_w, rejected - ref_l)
    plain = -torch.nn.functional.logsigmoid(0.1 * (a.sort().values - b.sort().values)).mean()
    (expected,) = torch.autograd.grad(plain, r.token_logps, retain_graph=True)
    settings = {"name": "aot", "variant": variant}
    assert value(settings, r) == pytest.approx(plain.item(), rel=1e-13)
    assert gradient(settings, r).tolist() == pytest.approx(expected.tolist(), rel=1e-12, abs=1e-15)


def test_the_step_is_observed_without_gradients() -> None:
    for settings in ({"name": "aot"}, {"name": "aot", "variant": "unpaired"}, {"name": "bco_pair"}):
        loss: CoupledLoss = make_loss(settings)  # type: ignore[assignment]
        observed = loss.observe(make(five()))
        assert observed.shape[0] == 8
        assert not observed.requires_grad


def test_sppo_draws_the_chosen_whatever_the_rejected_does() -> None:
    one, other = two([-1.0, -2.0], [-3.0], (-4.0, -4.0)), two([-1.0, -2.0], [-9.0], (-4.0, -4.0))
    assert gradient({"name": "sppo"}, one)[:2].tolist() == gradient({"name": "sppo"}, other)[:2].tolist()
    assert gradient({"name": "dpo"}, one)[0] != gradient({"name": "dpo"}, other)[0]


def test_sppo_asks_for_probabilities_only_where_it_uses_them() -> None:
    assert SPPO().needs == {"pairs", "reference"}
    assert SPPO(variant="soft").needs == {"pairs", "reference", "probabilities"}


def test_bco_measures_rewards_from_their_mean_over_the_step() -> None:
    shifted = two([-1.0, -2.0], [-3.0, -1.0, -2.0], (-7.0, -7.0))  # every log-ratio 3 higher
    for shift, same in (("step", True), ("zero", False)):
        settings = {"name": "bco_pair", "shift": shift}
        assert (value(settings, shifted) == pytest.approx(value(settings, hand()), rel=1e-12)) is same
    assert "step" in make_loss({"name": "bco_pair"}).needs
    assert "step" not in make_loss({"name": "bco_pair", "shift": "zero"}).needs


def test_the_shift_of_bco_is_a_mean_over_the_pairs_of_the_step() -> None:
    r = make([[Row((-1.0,), -2.0), Row((-3.0,), -2.0)], [Row((-1.0,), -4.0), Row((-2.0,), -1.0)]])
    delta = ((0.5 - 0.5) / 2 + (1.5 - 0.5) / 2) / 2  # rewards 0.5 and -0.5, 1.5 and -0.5
    by_hand = (softplus(-(0.5 - delta)) + softplus(-(1.5 - delta)) + 2 * softplus(-0.5 - delta)) / 2
    assert value({"name": "bco_pair", "beta": 0.5}, r) == pytest.approx(by_hand, rel=1e-14)


def test_discopop_begins_by_lowering_the_chosen_and_then_raises_it() -> None:
    at_reference = gradient({"name": "discopop"}, two([-3.0], [-4.0], (-3.0, -4.0)))
    assert at_reference[0] > 0
    assert at_reference[1] < 0
    wrong, right = two([-33.0], [-4.0], (-3.0, -4.0)), two([-1.0], [-4.0], (-41.0, -4.0))
    assert gradient({"name": "discopop"}, wrong)[0] < 0  # r = -1.5, where it is logistic
    assert gradient({"name": "discopop"}, right)[0] < 0  # r = +2, where it is exponential


def test_discopop_is_logistic_where_its_exponential_would_overflow() -> None:
    r = two([-50000.0], [-1.0], (-3.0, -4.0))
    assert value({"name": "discopop"}, r) == pytest.approx(0.05 * 50000, rel=1e-12)
    assert gradient({"name": "discopop"}, r).tolist() == pytest.approx([-0.05, 0.05], rel=1e-12)


def test_tdpo2_leaves_the_divergence_on_chosen_responses_alone() -> None:
    r = hand()
    divergence = torch.full((5,), 0.3, dtype=torch.float64, requires_grad=True)
    for variant in ("tdpo1", "tdpo2"):
        loss = total({"name": "tdpo", "variant": variant}, replace(r, forward_kl=divergence))
        (found,) = torch.autograd.grad(loss, divergence)
        assert (found[2:] > 0).all()  # less of it on rejected responses
        assert (found[:2] < 0).all() if variant == "tdpo1" else (found[:2] == 0).all()


def test_tdpo_logs_log_ratio_and_divergence() -> None:
    assert output({"name": "tdpo", "beta": 0.5}, hand()).rewards.tolist() == pytest.approx([0.625, -0.78], rel=1e-12)


def test_dpop_punishes_a_chosen_response_below_its_reference() -> None:
    below = two([-1.0, -2.0], [-3.0, -1.0, -2.0], (-2.5, -4.0))  # log-ratios -0.5 and -2
    settings = {"name": "dpop", "beta": 0.1, "lam": 4.0}
    assert value(settings, below) == pytest.approx(softplus(-0.1 * (1.5 - 4.0 * 0.5)), rel=1e-12)
    found = gradient(settings, below)
    assert found[0] == pytest.approx(-5 * found[2].item(), rel=1e-12)
    above = gradient(settings, hand())
    assert above[0] == pytest.approx(-above[2].item(), rel=1e-12)


def test_modpo_asks_more_of_a_chosen_response_that_the_other_objective_likes() -> None:
    def pair(margin: float) -> Responses:
        return make([[Row((-3.0,), -3.0, margins=(margin,)), Row((-3.0,), -3.0, margins=(0.0,))]])

    settings = {"name": "modpo"}
    assert value(settings, pair(1.0)) > value(settings, pair(0.0)) > value(settings, pair(-1.0))
    only_preference = {"name": "modpo", "weights": [1.0, 0.0]}
    assert value(only_preference, pair(5.0)) == pytest.approx(LN2, rel=1e-14)


def test_modpo_says_where_its_first_weight_explodes() -> None:
    assert MODPO(weights=[0.1, 0.9]).notes == ()
    (note,) = MODPO(weights=[0.05, 0.5, 0.45]).notes
    assert "multiplies rewards, margins and gradients by 20" in note
    assert MODPO(weights=[0.05, 0.5, 0.45]).num_margins == 2


def test_unlikelihood_pushes_likely_tokens_of_the_rejected_response_most() -> None:
    found = gradient({"name": "unlikelihood", "lam": 2.0}, hand())
    p = [math.exp(-3), math.exp(-1), math.exp(-2)]
    assert found.tolist() == pytest.approx([-0.5, -0.5, *(2 * x / (1 - x) / 3 for x in p)], rel=1e-12)


def test_slic_hf_imitates_the_response_it_is_told_to() -> None:
    rows = [Row((-1.0,)), Row((-2.0,)), Row((-4.0,)), Row((-8.0,))]
    r = make([rows], pairs=[(1, 2)])  # the best is the first, the target the last
    for target, logp in (("chosen", -2.0), ("best", -1.0), ("y_ref", -8.0)):
        settings = {"name": "slic_hf", "delta": 5.0, "lam": 0.1, "target": target}
        assert value(settings, r) == pytest.approx(5.0 - 2.0 - 0.1 * logp, rel=1e-14)
    assert SLiCHF().needs == {"pairs"}
    assert SLiCHF(target="best").needs == {"pairs", "best"}
    assert SLiCHF(target="y_ref").needs == {"pairs", "targets"}


REFUSED = [
    ({"name": "rso", "form": "sigmoid"}, "form must be sigmoid_norm, hinge_norm or hinge"),
    ({"name": "rso", "gamma": 0.0}, "gamma must be above 0"),
    ({"name": "ld_dpo", "ld_alpha": 1.0}, "at 1 it is loss=dpo"),
    ({"name": "ld_dpo", "ld_alpha": -0.1}, "ld_alpha must be in [0, 1)"),
    ({"name": "f_dpo", "divergence": "reverse_kl"}, "divergence=reverse_kl is loss=dpo"),
    ({"name": "f_dpo", "divergence": "tv"}, "divergence must be forward_kl, js or alpha"),
    ({"name": "f_dpo", "alpha": 0.3}, "alpha has no effect with divergence=js"),
    ({"name": "f_dpo", "divergence": "alpha", "alpha": 1.0}, "alpha must be in (0, 1)"),
    ({"name": "wpo", "clamp": "at_two"}, "clamp must be at_one or none"),
    ({"name": "wpo", "label_smoothing": 0.5}, "label_smoothing must be in [0, 0.5)"),
    ({"name": "aot", "variant": "sorted"}, "variant must be paired or unpaired"),
    ({"name": "aot", "label_smoothing": -0.1}, "label_smoothing must be in [0, 0.5)"),
    ({"name": "sppo", "variant": "firm"}, "variant must be hard or soft"),
    ({"name": "bco_pair", "shift": "mean"}, "shift must be step or zero"),
    ({"name": "discopop", "tau": 0.0}, "tau must be in (0, 1]"),
    ({"name": "discopop", "tau": 1.5}, "tau must be in (0, 1]"),
    ({"name": "tdpo", "variant": "tdpo3"}, "variant must be tdpo1 or tdpo2"),
    ({"name": "tdpo", "variant": "tdpo1", "alpha": 0.3}, "alpha has no effect with variant=tdpo1"),
    ({"name": "tdpo", "alpha": 0.0}, "at 0 it is loss=dpo"),
    ({"name": "dpop", "lam": 0.0}, "at 0 it is loss=dpo"),
    ({"name": "modpo", "weights": [1.0]}, "weights must be two numbers or more"),
    ({"name": "modpo", "weights": [0.0, 1.0]}, "the first of weights must be above 0"),
    ({"name": "modpo", "form": "sigmoid"}, "form must be logistic or hinge"),
    ({"name": "unlikelihood", "lam": 0.0}, "at 0 it is loss=sft"),
    ({"name": "slic_hf", "target": "reference"}, "target must be chosen, best or y_ref"),
    ({"name": "slic_hf", "lam": 0.0, "target": "best"}, "target has no effect with lam=0"),
    ({"name": "simpo", "normalisation": "mean"}, "normalisation must be length or none"),
    *[
        ({"name": name, "beta": 0.0}, "beta must be above 0")
        for name in ("ld_dpo", "f_dpo", "wpo", "aot", "sppo", "bco_pair", "discopop", "tdpo", "dpop", "modpo")
    ],
]


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_a_setting_without_effect_or_out_of_range_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_loss(settings)
    assert said in str(error.value)
