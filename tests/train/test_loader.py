"""The next step packed ahead: the same work, errors where they belong, no thread left behind."""

from __future__ import annotations

import threading
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from ragged import RaggedSet, make_engine, ragged_rows, settings

from prefopt.batch import Batch
from prefopt.data.plan import Plan
from prefopt.train.engine import Engine
from prefopt.train.loader import Loader
from prefopt.train.rows import Rows

PLAN = Plan(tuple(np.array(places) for places in ([0, 5, 7], [1, 6], [2, 3, 4, 8], [9, 10, 11, 12])), (4,))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return make_engine(settings("one"))


def assert_equal(a: Batch, b: Batch) -> None:
    for field in fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, field.name


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("prefopt-loader")]


@pytest.mark.parametrize("needs", [frozenset({"pairs"}), frozenset({"kl", "labels", "reference"})], ids=["pairs", "kl"])
def test_the_work_is_that_of_packing_it_when_it_is_needed(engine: Engine, needs: frozenset[str]) -> None:
    rows = ragged_rows(needs, True)
    with Loader(PLAN, rows, engine) as loader:
        for step, budget in enumerate((200, 200, 50, 10_000)):  # the third finds a step packed for another budget
            work = loader.take(step, budget)
            dealt = rows.cut(PLAN.steps[step], 1, budget)
            assert work.dealt == dealt
            expected = rows.micro_batches(dealt, 0)
            assert [m.real for m in work.micro_batches] == [m.real for m in expected]
            for got, wanted in zip(work.micro_batches, expected, strict=True):
                assert_equal(got.batch, wanted.batch)
            baselines = [] if rows.baseline is None else list(work.baseline)
            assert sum(len(m.batch.ids) for m in baselines) == (len(PLAN.steps[step]) if rows.baseline else 0)
            assert not work.spare.real
            assert work.spare.batch.ids == (f"row-{min(PLAN.steps[step], key=lambda e: rows.costs[e])}",)
        assert loader.seconds_waited() > 0
        assert loader.seconds_waited() == 0
    assert loader_threads() == []


def test_an_error_comes_up_at_the_step_that_needs_the_row(engine: Engine) -> None:
    data: Any = RaggedSet(frozenset())
    data.rows[3] = replace(data.rows[3], responses=[[5, 2], []])
    with Loader(PLAN, Rows(data, frozenset(), True), engine) as loader:
        assert loader.take(0, 200).micro_batches
        assert loader.take(1, 200).micro_batches  # the thread is already at the broken step
        with pytest.raises(ValueError, match="no empty response"):
            loader.take(2, 200)
    assert loader_threads() == []


def test_the_thread_ends_with_a_run_that_fails_or_stops(engine: Engine) -> None:
    def stopped_run() -> None:
        with Loader(PLAN, ragged_rows(frozenset(), True), engine) as loader:
            loader.take(0, 200)
            assert len(loader_threads()) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_run()
    assert loader_threads() == []
