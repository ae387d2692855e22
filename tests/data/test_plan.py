"""Steps and their cuts: every row in its place, balanced, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefopt.data.plan import Plan, cut, make_plan
from prefopt.errors import UserError


def plan(num_rows: int = 100, counts: np.ndarray | None = None, **changes) -> Plan:
    settings = {
        "batch_size": 8,
        "epochs": 1.0,
        "max_steps": None,
        "seed": 3,
        "num_ranks": 1,
        "tokens_per_micro_batch": 1000,
        **changes,
    }
    sources = settings.pop("sources", [(0, num_rows, 1.0)])
    ones = np.ones(num_rows, dtype=np.int64)
    return make_plan(np.full(num_rows, 10), ones if counts is None else counts, sources, **settings)


def test_an_epoch_sees_every_row_once_and_the_last_step_may_be_smaller() -> None:
    steps = plan(100).steps
    assert [len(s) for s in steps] == [8] * 12 + [4]
    assert sorted(np.concatenate(steps)) == list(range(100))


def test_epochs_are_shuffled_anew_and_reproducibly() -> None:
    a, b = plan(epochs=2.0), plan(epochs=2.0)
    assert all((x == y).all() for x, y in zip(a.steps, b.steps, strict=True))
    assert not (np.concatenate(a.steps[:13]) == np.concatenate(a.steps[13:])).all()
    assert not (np.concatenate(a.steps) == np.concatenate(plan(epochs=2.0, seed=4).steps)).all()


def test_the_order_is_the_same_on_every_machine() -> None:
    assert plan(10, batch_size=10).steps[0].tolist() == [3, 4, 9, 1, 0, 8, 5, 7, 2, 6]


def test_ends_of_epochs_fractions_and_max_steps() -> None:
    assert plan(epochs=2.0).epoch_ends == (13, 26)
    assert len(plan(epochs=1.5)) == 13 + 7
    assert len(plan(epochs=3.0, max_steps=20)) == 20
    p = plan(epochs=2.0)
    assert (p.epoch(0), p.epoch(13), p.epoch(26)) == (0.0, 1.0, 2.0)
    assert 0.9 < p.epoch(12) < 1.0


def test_batch_size_counts_pairs() -> None:
    counts = np.array([3, 3, 3, 1, 1, 1, 6, 2] * 5)
    for step in plan(40, counts).steps:
        assert counts[step].sum() <= 8
    with pytest.raises(UserError, match=r"batch_size=5 cannot be reached: one prompt alone has 6 pairs"):
        plan(40, counts, batch_size=5)


def test_weights_of_sources_are_times_per_epoch() -> None:
    p = plan(100, sources=[(0, 50, 2.0), (50, 50, 0.5)], epochs=2.0)
    seen = [Counter(np.concatenate(p.steps[a:b]).tolist()) for a, b in ((0, p.epoch_ends[0]), p.epoch_ends)]
    for epoch in seen:
        assert all(epoch[row] == 2 for row in range(50))
        assert sum(epoch[row] for row in range(50, 100)) == 25
        assert max(epoch[row] for row in range(50, 100)) == 1
    halves = [{row for row in epoch if row >= 50} for epoch in seen]
    assert halves[0] != halves[1]  # the fraction is drawn anew


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(1, 2000),
)
def test_a_cut_holds_every_row_once_within_the_budget(costs: list[int], ranks: int, budget: int) -> None:
    dealt = cut(np.arange(len(costs)), np.array(costs), ranks, budget)
    flat = [e for rank in dealt.micro_batches for micro in rank for e in micro]
    assert sorted(flat) == list(range(len(costs)))
    assert len({len(rank) for rank in dealt.micro_batches}) == 1
    for rank in dealt.micro_batches:
        for micro in rank:
            assert sum(costs[e] for e in micro) <= max(budget, max(costs))


def test_a_cut_is_balanced() -> None:
    costs = np.array([900, 100, 500, 500, 450, 550, 300, 700])
    dealt = cut(np.arange(8), costs, 2, 1000)
    loads = [costs[list(m)].sum() for rank in dealt.micro_batches for m in rank]
    assert dealt.num_micro_batches == 2
    assert max(loads) == min(loads) == 1000


def test_a_rank_with_nothing_left_has_an_empty_micro_batch() -> None:
    dealt = cut(np.arange(3), np.array([10, 10, 10]), 2, 10)
    assert dealt.num_micro_batches == 2
    assert sum(not micro for rank in dealt.micro_batches for micro in rank) == 1
