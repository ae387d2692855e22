"""A weighted sum of methods: its value, its names, what it refuses, and that a default written down changes nothing."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from itertools import combinations
from typing import Any

import pytest
import torch
from bed import Row, coupled, make, total, two, value

from prefopt.batch import Responses, Unit
from prefopt.config import compose, identity
from prefopt.errors import UserError
from prefopt.losses import loss_class, make_loss, names


def mix(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"name": "mix", "parts": list(parts)}


def hand() -> Responses:
    return two([-1.0, -2.0], [-3.0, -1.0, -2.0], (-4.0, -4.0))


def several() -> Responses:
    """Prompts with two, three and two responses, which have every column."""
    rows = [Row((-1.0 - n / 3, -0.5 * n), -2.0 - n / 2, n % 3 == 0, 1.0 - n / 10, (n / 7,)) for n in range(7)]
    return make([rows[:2], rows[2:5], rows[5:]])


def test_a_mix_is_the_weighted_sum_of_its_parts() -> None:
    parts = ({"name": "dpo", "beta": 0.3}, {"name": "sft", "weight": 0.3})
    expected = value({"name": "dpo", "beta": 0.3}, hand()) + 0.3 * value({"name": "sft"}, hand())
    assert value(mix(*parts), hand()) == pytest.approx(expected, rel=1e-15)


def test_three_parts_that_are_counted_in_pairs_responses_and_tokens() -> None:
    """As MPO (Wang et al. 2024): preference, quality of single responses, imitation."""
    weights = {"dpo": 0.8, "apo_zero_unpaired": 0.2, "sft": 1.0}
    got = total(mix(*({"name": name, "weight": weight} for name, weight in weights.items())), r := several())
    expected = sum(weight * value({"name": name}, several()) for name, weight in weights.items())
    assert got.item() == pytest.approx(expected, rel=1e-14)
    got.backward()
    gradients = []
    for name, weight in weights.items():
        alone = several()
        total({"name": name}, alone).backward()
        assert alone.token_logps.grad is not None
        gradients.append(weight * alone.token_logps.grad)
    assert r.token_logps.grad is not None
    assert torch.allclose(r.token_logps.grad, sum(gradients), rtol=1e-12)  # type: ignore[arg-type]


def test_the_default_is_iterative_rpo() -> None:
    expected = value({"name": "dpo"}, hand()) + 1.5  # three nats of the chosen response over its two tokens
    assert value({"name": "mix"}, hand()) == pytest.approx(expected, rel=1e-15)


def test_terms_keep_their_units_and_names_and_the_rewards_are_those_of_the_first_part() -> None:
    output = make_loss(mix({"name": "dpo", "weight": 0.5}, {"name": "orpo", "lam": 0.2, "weight": 2.0}))(hand())
    assert [(c.name, c.unit, c.weight) for c in output.components] == [
        ("dpo", Unit.PAIR, 0.5),
        ("nll", Unit.TOKEN, 2.0),
        ("odds_ratio", Unit.PAIR, 0.4),
    ]
    assert output.rewards.tolist() == make_loss({"name": "dpo"})(hand()).rewards.tolist()


def test_a_name_that_two_parts_share_has_the_parts_in_front() -> None:
    output = make_loss(mix({"name": "cpo"}, {"name": "sft"}))(hand())
    assert [c.name for c in output.components] == ["cpo", "cpo/nll", "sft/nll"]
    output = make_loss(mix({"name": "dpo", "beta": 0.1}, {"name": "sft"}, {"name": "dpo", "beta": 0.5}))(hand())
    assert [c.name for c in output.components] == ["dpo_1/dpo", "nll", "dpo_2/dpo"]


def test_a_mix_needs_what_its_parts_need() -> None:
    assert make_loss(mix({"name": "sft"}, {"name": "simpo"})).needs == {"pairs"}
    sequence = {"name": "orpo", "nll_over": "sequence"}
    assert make_loss(mix({"name": "kto"}, sequence)).needs == {"labels", "reference", "kl", "pairs", "prompt_logps"}


def test_a_default_written_down_is_the_same_run() -> None:
    short = make_loss(mix({"name": "dpo"}, {"name": "slic", "weight": 1}))
    full = make_loss(
        mix(
            {"name": "dpo", "weight": 1.0, "beta": 0.1},
            {
                "name": "slic",
                "weight": 1.0,
                "calibration": "rank",
                "regulariser": "cross_entropy",
                "beta": 1,
                "lam": 0.1,
                "target": "best",
            },
        )
    )
    assert short == full
    assert make_loss({"name": "mix", **asdict(short)}) == short  # type: ignore[call-overload]


def test_a_mix_is_composed_from_the_command_line_and_its_numbers_keep_their_types() -> None:
    words = ["recipe=quickstart", "loss=mix"]
    run = compose([*words, "loss.parts=[{name: simpo, beta: 2}, {name: sft, weight: 1}]"])
    assert run.loss["parts"][0] == {
        "name": "simpo",
        "weight": 1.0,
        "beta": 2.0,
        "gamma_beta_ratio": 0.5,
        "form": "logistic",
        "label_smoothing": 0.0,
        "normalisation": "length",
    }
    assert all(type(run.loss["parts"][0][key]) is float for key in ("weight", "beta"))
    written_down = compose([*words, "loss.parts=[{name: simpo, weight: 1.0, form: logistic}, {name: sft}]"])
    assert identity(run) == identity(written_down)
    other = compose([*words, "loss.parts=[{name: simpo, weight: 0.9}, {name: sft}]"])
    assert identity(run) != identity(other)


def test_no_method_has_a_setting_that_a_part_could_not_say() -> None:
    for name in names():
        assert not {f.name for f in fields(loss_class(name))} & {"name", "weight"}


COUPLED = [name for name in names() if "step" in make_loss({"name": name}).needs]


@pytest.mark.parametrize("name", COUPLED)
def test_a_coupled_method_beside_another_is_the_sum_of_both(name: str) -> None:
    expected = value({"name": "dpo"}, several()) + 0.5 * value({"name": name}, several())
    assert value(mix({"name": "dpo"}, {"name": name, "weight": 0.5}), several()) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("a", "b"), list(combinations(COUPLED, 2)))
def test_two_coupled_methods_see_their_own_columns_or_are_refused(a: str, b: str) -> None:
    both = mix({"name": a}, {"name": b})
    rows = [len(make_loss({"name": name}).observe(several())) for name in (a, b)]  # type: ignore[attr-defined]
    if rows[0] != rows[1]:
        with pytest.raises(UserError, match="different things of the step"):
            coupled(both, several())
    else:
        expected = value({"name": a}, several()) + value({"name": b}, several())
        assert value(both, several()) == pytest.approx(expected, rel=1e-14)


def test_a_target_is_shared_by_parts_that_know_of_it() -> None:
    a = {"name": "slic", "calibration": "list_rank", "target": "y_ref"}
    b = {"name": "slic", "calibration": "reward", "target": "y_ref"}
    r = replace(several(), targets=torch.tensor([1, 4, 6]))
    assert value(mix(a, b), r) == pytest.approx(value(a, r) + value(b, r), rel=1e-14)


Y_REF = {"name": "slic", "target": "y_ref"}
SFT = {"name": "sft"}
REFUSED = [
    (mix(), "two methods or more"),
    (mix({"name": "dpo"}), "one alone is loss=NAME"),
    (mix(SFT, mix({"name": "dpo"}, SFT)), "loss.parts.1: a mix inside a mix"),
    (mix(SFT, {"weight": 1.0}), "loss.parts.1: name must be that of a method"),
    (mix(SFT, "dpo"), "loss.parts.1: expected the name, weight and settings of a method"),  # type: ignore[arg-type]
    (mix(SFT, {"name": "dpoo"}), "did you mean 'dpo'"),
    (mix(SFT, {"name": "dpo", "betta": 0.1}), "loss.parts.1.betta: there is no such key\n  did you mean 'beta'?"),
    (mix(SFT, {"name": "dpo", "beta": "big"}), "loss.parts.1.beta: expected a number"),
    (mix(SFT, {"name": "dpo", "beta": 0.0}), "loss.parts.1: beta must be above 0"),
    (mix(SFT, {"name": "dpo", "weight": 0}), "loss.parts.1: weight must be above 0, not 0.0"),
    (mix(SFT, {"name": "dpo", "weight": "1"}), "loss.parts.1.weight: expected a number"),
    (mix({"name": "reward_bt"}, SFT), "reward_bt trains a scalar head and sft the LM head"),
    (mix(SFT, {"name": "rank_pointwise"}), "rank_pointwise predicts a verdict"),
    (mix({"name": "rank_pairwise"}, {"name": "rank_pairwise"}), "rank_pairwise predicts a verdict"),
    (mix(Y_REF, {"name": "rrhf"}), "slic adds the target y_ref, which rrhf would take for one more response"),
    (mix({"name": "kto"}, Y_REF), "slic adds the target y_ref, which kto would take for one more response"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_what_cannot_be_mixed_is_refused_in_one_sentence(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_loss(settings)
    assert said in str(error.value)
