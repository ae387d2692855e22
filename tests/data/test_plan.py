"""Steps and their cuts: every row in its place, balanced, the same for the same seed."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefopt.data.partition import deal, largest_differencing, longest_first
from prefopt.data.plan import Plan, cut, make_plan, plan_notes, too_few
from prefopt.errors import UserError
from prefopt.settings import TrainSettings


def plan(num_rows: int = 100, counts: np.ndarray | None = None, **changes) -> Plan:
    settings = {
        "batch_size": 8,
        "epochs": 1.0,
        "max_steps": None,
        "seed": 3,
        **changes,
    }
    sources = settings.pop("sources", [(0, num_rows, 1.0)])
    ones = np.ones(num_rows, dtype=np.int64)
    return make_plan(ones if counts is None else counts, sources, **settings)


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


def test_data_smaller_than_a_batch_is_one_step_of_all_of_it_and_said() -> None:
    sources, counts = [(0, 32, 1.0)], np.ones(32, dtype=np.int64)
    small = plan(32, batch_size=128, epochs=2.0)
    assert small.sizes(counts) == [32, 32]
    said = "train.batch_size=128 is more than the 32 pairs: every step takes all of them, one step an epoch"
    assert too_few(small, counts, sources, 128, "pairs") == said
    assert too_few(plan(32, batch_size=32), counts, sources, 32, "pairs") == ""
    assert plan(32, batch_size=24).sizes(counts) == [24, 8]
    assert too_few(plan(32, batch_size=24), counts, sources, 24, "pairs") == ""
    twos = np.full(32, 2)  # a step of 7 holds three prompts of two pairs, which is no lack of data
    assert too_few(plan(32, twos, batch_size=7, max_steps=1), twos, sources, 7, "pairs") == ""


def test_max_steps_that_the_epochs_do_not_reach_is_said() -> None:
    sources, counts = [(0, 48, 1.0)], np.ones(48, dtype=np.int64)

    def notes(max_steps: int | None, epochs: float = 1.0) -> list[str]:
        made = plan(48, batch_size=8, epochs=epochs, max_steps=max_steps)
        train = TrainSettings(batch_size=8, epochs=epochs, max_steps=max_steps)
        return plan_notes(made, counts, sources, train, "pairs")

    assert notes(12) == ["train.max_steps=12 is not reached: train.epochs=1 ends after step 6"]
    assert notes(12, 1.5) == ["train.max_steps=12 is not reached: train.epochs=1.5 ends after step 9"]
    assert notes(6) == notes(5) == notes(None) == notes(12, 2.0) == []


def test_weights_of_sources_are_times_per_epoch() -> None:
    p = plan(100, sources=[(0, 50, 2.0), (50, 50, 0.5)], epochs=2.0)
    seen = [Counter(np.concatenate(p.steps[a:b]).tolist()) for a, b in ((0, p.epoch_ends[0]), p.epoch_ends)]
    for epoch in seen:
        assert all(epoch[row] == 2 for row in range(50))
        assert sum(epoch[row] for row in range(50, 100)) == 25
        assert max(epoch[row] for row in range(50, 100)) == 1
    halves = [{row for row in epoch if row >= 50} for epoch in seen]
    assert halves[0] != halves[1]  # the fraction is drawn anew


SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=40)


@given(SIZES, st.integers(1, 4), st.integers(1, 2000), st.integers(0, 3))
def test_a_cut_holds_every_row_once_within_the_budget(sizes: list[int], ranks: int, budget: int, square: int) -> None:
    tokens = np.array(sizes)
    work = 1000 * tokens + square * tokens**2
    dealt = cut(np.arange(len(sizes)), tokens, ranks, budget, work)
    flat = [e for rank in dealt.micro_batches for micro in rank for e in micro]
    assert sorted(flat) == list(range(len(sizes)))
    assert len({len(rank) for rank in dealt.micro_batches}) == 1
    for rank in dealt.micro_batches:
        for micro in rank:
            assert len(micro) <= 1 or sum(sizes[e] for e in micro) <= budget
    again = cut(np.arange(len(sizes))[::-1], tokens, ranks, budget, work)
    assert again == dealt  # whatever the order of drawing


@given(SIZES, st.integers(1, 4), st.integers(1, 2000))
def test_a_cut_needs_no_more_micro_batches_than_longest_first(sizes: list[int], ranks: int, budget: int) -> None:
    dealt = cut(np.arange(len(sizes)), np.array(sizes), ranks, budget)
    num_bins = ranks
    while any(
        len(b) > 1 and sum(sizes[p] for p in b) > budget for b in longest_first(sizes, num_bins)
    ) and num_bins < len(sizes):
        num_bins += ranks
    assert dealt.num_micro_batches <= num_bins // ranks


@given(SIZES, st.integers(1, 4))
def test_work_lies_no_less_evenly_than_longest_first_puts_it(sizes: list[int], ranks: int) -> None:
    tokens = np.array(sizes)
    work = 1000 * tokens + tokens**2
    dealt = cut(np.arange(len(sizes)), tokens, ranks, 10**6, work)
    heaviest = max(int(work[list(micro)].sum()) for rank in dealt.micro_batches for micro in rank)
    expected = longest_first(work.tolist(), ranks)
    assert heaviest <= max(sum(int(work[p]) for p in members) for members in expected)


def sums_of(work: list[int], num_bins: int) -> list[int]:
    return sorted(sum(work[p] for p in members) for members in largest_differencing(work, num_bins))


def test_the_differencing_method_by_hand() -> None:
    # 8-7 leaves 1, 6-5 leaves 1, 4-1 leaves 3, 3-1 leaves 2: {8, 6} and {7, 5, 4}. Longest first: 17 and 13.
    assert sums_of([8, 7, 6, 5, 4], 2) == [14, 16]
    # 5, 5 and 4 make (5, 5, 4); 3, 3 and 1 make (3, 3, 1); heaviest with lightest: 5 + 1, 5 + 3, 4 + 3.
    assert sums_of([5, 5, 4, 3, 3, 1], 3) == [6, 7, 8]
    assert largest_differencing([3, 1], 4) == [[0], [1], [], []]


def test_attention_is_balanced_and_not_only_tokens() -> None:
    tokens = np.array([400, 100, 100, 100, 100])
    assert {len(micro) for (micro,) in cut(np.arange(5), tokens, 2, 1000).micro_batches} == {1, 4}
    # One score is a hundredth of a token: the long row is worth 400 + 800, a short one 100 + 50.
    work = tokens + tokens**2 // 200
    dealt = cut(np.arange(5), np.array([400, 100, 100, 100, 100]), 1, 400, work)
    assert sorted(len(micro) for micro in dealt.micro_batches[0]) == [1, 4]
    more = np.array([400, *[100] * 12])
    dealt = cut(np.arange(13), more, 2, 1000, more + more**2 // 200)
    works = [int((more + more**2 // 200)[list(m)].sum()) for rank in dealt.micro_batches for m in rank]
    assert dealt.num_micro_batches == 1
    assert works == [1500, 1500]  # 1200 + 2 * 150, and 10 * 150


def test_a_tight_budget_is_met_by_a_packing_that_sums_alone_do_not_find() -> None:
    tokens = np.array([6, 6, 6, 4, 4, 4, 5, 5])  # four bins of ten
    dealt = cut(np.arange(8), tokens, 2, 10)
    assert dealt.num_micro_batches == 2
    assert {int(tokens[list(m)].sum()) for rank in dealt.micro_batches for m in rank} == {10}


def test_a_cut_is_balanced() -> None:
    costs = np.array([900, 100, 500, 500, 450, 550, 300, 700])
    dealt = cut(np.arange(8), costs, 2, 1000)
    loads = [costs[list(m)].sum() for rank in dealt.micro_batches for m in rank]
    assert dealt.num_micro_batches == 2
    assert max(loads) == min(loads) == 1000


def test_micro_batches_of_the_same_number_cost_about_the_same_on_every_rank() -> None:
    dealt = deal([[p] for p in range(6)], [9, 8, 7, 4, 3, 1], 2)
    # Rounds of 9 and 8, 7 and 4, 3 and 1; the heavier one to the rank that has less: 16 each.
    assert dealt == [[[0], [3], [4]], [[1], [2], [5]]]


def test_a_row_above_the_budget_has_a_micro_batch_of_its_own() -> None:
    tokens = np.array([1000, 10, 10, 10])
    (share,) = cut(np.arange(4), tokens, 1, 30).micro_batches
    assert sorted(share) == [(0,), (1, 2, 3)]


def test_a_rank_with_nothing_left_has_an_empty_micro_batch() -> None:
    dealt = cut(np.arange(3), np.array([10, 10, 10]), 2, 10)
    assert dealt.num_micro_batches == 2
    assert sum(not micro for rank in dealt.micro_batches for micro in rank) == 1


def test_planning_takes_time_in_proportion_to_the_rows() -> None:
    """Lines of Python that are run, which no other process can change."""

    def lines(num_rows: int, budget: int) -> int:
        tokens = np.random.Generator(np.random.Philox(num_rows)).integers(20, 600, num_rows)
        count = 0

        def trace(frame: FrameType, event: str, _: object) -> object:
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            drawn = plan(num_rows, batch_size=64)
            for step in drawn.steps:
                cut(step, tokens, 2, budget, 1000 * tokens + tokens**2)
        finally:
            sys.settrace(before)
        return count

    for budget in (8192, 1200):
        assert lines(4096, budget) < 2.4 * lines(2048, budget)


def test_a_large_cut_does_not_take_quadratic_time() -> None:
    tokens = np.random.Generator(np.random.Philox(1)).integers(20, 600, 4096)
    dealt = cut(np.arange(4096), tokens, 1, 700, tokens)
    assert dealt.num_micro_batches < 1.2 * tokens.sum() / 700
