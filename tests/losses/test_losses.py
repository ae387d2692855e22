"""Each loss by hand-computed values, known values at policy = reference, signs, and extreme log-probabilities."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
import torch
from bed import COLUMNS, VARIANTS, Row, changed, counts, coupled, make, total, two, value, without_others
from hypothesis import given
from hypothesis import strategies as st

from prefopt.batch import Responses
from prefopt.errors import UserError
from prefopt.losses import make_loss, names
from prefopt.losses.numerics import log1mexp
from prefopt.losses.orpo import ORPO
from prefopt.needs import NEEDS

EVERY = [{"name": name} for name in names()] + VARIANTS
"""What the properties below are asked of."""


def responses(
    token_logps: list[list[float]],
    pairs: list[tuple[int, int]],
    best: list[int],
    reference: list[float] | None = None,
    prompt_logps: list[float] | None = None,
) -> Responses:
    """Responses whose token log-probabilities are one leaf, without any column that is not given."""
    tokens = torch.tensor([t for r in token_logps for t in r], dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([len(r) for r in token_logps])
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    return Responses(
        token_logps=tokens,
        row=row,
        logps=torch.zeros(len(lengths), dtype=torch.float64).index_add(0, row, tokens),
        lengths=lengths,
        example=torch.zeros(len(lengths), dtype=torch.int64),
        pairs=torch.tensor(pairs).reshape(-1, 2),
        best=torch.tensor(best),
        reference_logps=None if reference is None else torch.tensor(reference, dtype=torch.float64),
        prompt_logps=None if prompt_logps is None else torch.tensor(prompt_logps, dtype=torch.float64),
    )


TWO = [[-1.0, -2.0], [-3.0, -1.0, -2.0]]  # sums -3, -6; means -1.5, -2


def test_sft_is_the_mean_over_all_response_tokens_of_the_best_rows() -> None:
    r = responses([[-1.0, -2.0], [-6.0], [-3.0]], [], [0, 1, 2])
    assert value({"name": "sft"}, r) == pytest.approx((1 + 2 + 6 + 3) / 4)
    assert value({"name": "sft", "reduction": "sequence_sum"}, r) == pytest.approx((3 + 6 + 3) / 3)
    assert value({"name": "sft", "reduction": "sequence_mean"}, r) == pytest.approx((1.5 + 6 + 3) / 3)


def test_sft_leaves_the_rejected_response_alone() -> None:
    r = responses(TWO, [(0, 1)], [0])
    make_loss({"name": "sft"})(r).total(counts(r)).backward()
    assert r.token_logps.grad is not None
    assert r.token_logps.grad.tolist() == [-0.5, -0.5, 0, 0, 0]


def test_sft_logs_the_log_probability_of_each_response() -> None:
    assert make_loss({"name": "sft"})(responses(TWO, [(0, 1)], [0])).rewards.tolist() == [-3, -6]


def test_dpo_by_hand() -> None:
    r = responses(TWO, [(0, 1)], [0], reference=[-4.0, -5.0])  # log-ratios +1 and -1
    assert value({"name": "dpo", "beta": 0.5}, r) == pytest.approx(math.log(1 + math.exp(-0.5 * 2)))


def test_dpo_is_log_two_when_policy_equals_reference() -> None:
    r = responses(TWO, [(0, 1)], [0], reference=[-3.0, -6.0])
    assert value({"name": "dpo"}, r) == pytest.approx(math.log(2), abs=1e-15)


def test_simpo_by_hand() -> None:
    r = responses(TWO, [(0, 1)], [0])
    x = 2.0 * (-1.5 + 2.0 - 0.3)
    assert value({"name": "simpo", "beta": 2.0, "gamma_beta_ratio": 0.3}, r) == pytest.approx(math.log1p(math.exp(-x)))
    hinge = {"name": "simpo", "beta": 2.0, "gamma_beta_ratio": 0.3, "form": "hinge"}
    assert value(hinge, r) == pytest.approx(1 - x)


def test_simpo_has_no_nll_term() -> None:
    r = responses(TWO, [(0, 1)], [0])
    assert [c.name for c in make_loss({"name": "simpo"})(r).components] == ["simpo"]


def test_orpo_by_hand() -> None:
    r = responses(TWO, [(0, 1)], [0], prompt_logps=[-0.5, -0.7])
    odds = [p / (1 - p) for p in (math.exp(-1.5), math.exp(-2.0))]
    preference = math.log1p(odds[1] / odds[0])
    assert value({"name": "orpo", "lam": 0.3}, r) == pytest.approx(1.5 + 0.3 * preference)
    over_all = {"name": "orpo", "lam": 0.3, "nll_over": "sequence"}
    assert value(over_all, r) == pytest.approx((3 + 1.2) / 4 + 0.3 * preference)


@pytest.mark.parametrize("name", ["dpo", "simpo", "orpo"])
def test_a_step_down_the_loss_raises_the_chosen_and_lowers_the_rejected(name: str) -> None:
    r = responses(TWO, [(0, 1)], [0], reference=[-4.0, -5.0])
    make_loss({"name": name})(r).total(counts(r)).backward()
    assert r.token_logps.grad is not None
    assert (r.token_logps.grad[:2] < 0).all()
    assert (r.token_logps.grad[2:] > 0).all()


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_every_loss_is_finite_with_a_finite_gradient_from_certain_to_impossible(settings: dict) -> None:
    for low in (-1e-8, -1e-4, -1.0, -88.0, -104.0, -1e4):
        for chosen, rejected in ((low, -1.0), (-1.0, low), (low, low)):
            r = two([chosen] * 3, [rejected] * 2, (-5.0, -5.0))
            loss = total(settings, r)
            loss.backward()
            assert r.token_logps.grad is not None
            assert loss.isfinite()
            assert r.token_logps.grad.isfinite().all()


def test_a_certain_response_does_not_make_orpo_infinite() -> None:
    r = responses([[0.0], [-1.0]], [(0, 1)], [0])
    total = make_loss({"name": "orpo"})(r).total(counts(r))
    total.backward()
    assert total.isfinite()
    assert r.token_logps.grad is not None
    assert r.token_logps.grad.isfinite().all()


@given(st.floats(min_value=-1e4, max_value=-1e-11))
def test_log1mexp_is_the_log_of_one_minus_p(x: float) -> None:
    got = log1mexp(torch.tensor(x, dtype=torch.float64)).item()
    exact = math.log(-math.expm1(x)) if x > -0.5 else math.log1p(-math.exp(x))
    assert got == pytest.approx(exact, rel=1e-12, abs=1e-300)


def test_log1mexp_keeps_its_digits_in_float32_near_certainty() -> None:
    got = log1mexp(torch.tensor([-1e-6, -1e-9], dtype=torch.float32))
    assert got.tolist() == pytest.approx([-13.815511, -20.723267], rel=1e-6)


def random_examples(num_examples: int, seed: int) -> list[list[Row]]:
    random = Random(seed)

    def row(score: float, label: bool) -> Row:
        tokens = tuple(-5 * random.random() - 1e-3 for _ in range(random.randint(1, 8)))
        return Row(tokens, -20 * random.random(), label, score, (random.random(),))

    return [
        [row(1.0, True), *(row(0.9 - 0.2 * n, False) for n in range(random.randint(1, 3)))] for _ in range(num_examples)
    ]


@pytest.mark.parametrize("settings", EVERY, ids=str)
@given(num_examples=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_the_loss_of_a_step_does_not_depend_on_the_order_of_its_rows(
    settings: dict, num_examples: int, seed: int
) -> None:
    examples = random_examples(num_examples, seed)
    shuffled = Random(seed).sample(examples, len(examples))
    a, b = (value(settings, make(e)) for e in (examples, shuffled))
    assert a == pytest.approx(b, rel=1e-12)


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_a_method_works_with_the_columns_that_it_lists_and_no_other(settings: dict) -> None:
    everything = make(random_examples(3, 0))
    loss = make_loss(settings)
    assert loss.needs <= NEEDS.keys()
    only = without_others(everything, loss.needs)
    count = counts(everything)
    with_all = loss(coupled(settings, everything)).total(count)
    assert torch.equal(loss(coupled(settings, only)).total(count), with_all)


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_a_listed_need_matters(settings: dict) -> None:
    everything = make(random_examples(3, 0))
    loss = make_loss(settings)
    count = counts(everything)
    before = loss(coupled(settings, everything)).total(count)
    for need in loss.needs & COLUMNS.keys():
        if need == "labels" and "verdicts" in loss.needs:
            continue  # the verdict spells the label: the loss has read it already
        after = loss(coupled(settings, changed(everything, need)))
        assert after.total(count) != before, need


def unequal() -> Responses:
    """Three prompts with four pairs among nine responses, two of them desirable: no two units are equally many."""
    rows = [Row(tuple(-0.3 * (n + k + 1) for k in range(n % 3 + 1)), -4.0 + n / 3, False, 1 - n / 10) for n in range(9)]
    examples = [rows[:3], rows[3:5], rows[5:]]
    labels = torch.tensor([n in (2, 5) for n in range(9)])
    return replace(make(examples, pairs=[(0, 1), (0, 2), (3, 4), (6, 8)]), labels=labels)


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_a_term_has_one_value_for_each_of_its_units(settings: dict) -> None:
    r = unequal()
    count = counts(r)
    assert len(set(count.values())) == len(count)
    for component in make_loss(settings)(coupled(settings, r)).components:
        assert component.values.shape == (count[component.unit],)


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_there_is_one_reward_for_each_response_and_it_has_no_gradient(settings: dict) -> None:
    r = unequal()
    rewards = make_loss(settings)(coupled(settings, r)).rewards
    assert rewards.shape == r.lengths.shape
    assert not rewards.requires_grad


def test_needs_of_orpo_follow_its_scope() -> None:
    assert ORPO().needs == {"pairs"}
    assert ORPO(nll_over="sequence").needs == {"pairs", "prompt_logps"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "simpoo"}, "did you mean 'simpo'?"),
        ({"name": "simpo", "betta": 1.0}, "did you mean 'beta'?"),
        ({"name": "dpo", "beta": 0.0}, "beta must be above 0"),
        ({"name": "simpo", "form": "hinge", "label_smoothing": 0.1}, "no effect with form=hinge"),
        ({"name": "orpo", "nll_over": "prompt"}, "nll_over must be response or sequence"),
        ({"name": "sft", "reduction": "mean"}, "reduction must be"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_loss(settings)
    assert said in str(error.value)
