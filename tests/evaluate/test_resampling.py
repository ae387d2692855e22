"""Intervals: as scipy's, shared draws, and ratios whose parts are drawn together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from prefopt.evaluate.resampling import Derived, Ratio, figures_of, resample_sums


def test_interval_of_a_bernoulli_mean_is_scipys() -> None:
    hits = (np.arange(200) < 60).astype(np.float64)
    found = figures_of({"accuracy": Ratio(hits, np.ones(200))}, {}, np.arange(200), 20000, 1)["accuracy"]
    theirs = bootstrap((hits,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(2))
    assert found.value == pytest.approx(0.3)
    assert found.count == 200
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.006)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.006)


def test_interval_of_a_ratio_is_scipys_of_paired_sums() -> None:
    random = np.random.default_rng(0)
    den = random.integers(1, 20, 80).astype(np.float64)
    num = den * random.normal(2.0, 0.5, 80)

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return a.sum(axis=axis) / b.sum(axis=axis)

    found = figures_of({"nll": Ratio(num, den)}, {}, np.arange(80), 20000, 1)["nll"]
    theirs = bootstrap((num, den), ratio, paired=True, n_resamples=20000, method="percentile", rng=random)
    assert found.value == pytest.approx(num.sum() / den.sum())
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)


def test_ratio_whose_parts_move_together_has_no_width() -> None:
    den = np.arange(1.0, 31.0)
    found = figures_of({"r": Ratio(3 * den, den)}, {}, np.arange(30), 200, 0)["r"]
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))


def test_rows_of_one_unit_are_drawn_together() -> None:
    values = np.repeat([0.0, 1.0], 50)
    together = figures_of({"m": Ratio(values, np.ones(100))}, {}, np.repeat([0, 1], 50), 500, 0)["m"]
    apart = figures_of({"m": Ratio(values, np.ones(100))}, {}, np.arange(100), 500, 0)["m"]
    assert (together.low, together.high) == (0.0, 1.0)
    assert apart.low is not None
    assert 0.3 < apart.low < 0.5


def test_one_unit_has_no_interval_and_nothing_counted_no_figure() -> None:
    ratios = {"m": Ratio(np.array([2.0, 4.0]), np.ones(2)), "none": Ratio(np.zeros(2), np.zeros(2))}
    found = figures_of(ratios, {}, np.zeros(2, dtype=np.int64), 100, 0)
    assert list(found) == ["m"]
    assert (found["m"].value, found["m"].low, found["m"].high) == (3.0, None, None)


def test_derived_figure_has_the_interval_of_its_draws() -> None:
    random = np.random.default_rng(3)
    ratios = {"nll": Ratio(random.normal(1.0, 0.3, 50), np.ones(50))}
    found = figures_of(ratios, {"perplexity": Derived(lambda r: np.exp(r["nll"]), 50)}, np.arange(50), 500, 0)
    for of_nll, of_perplexity in zip(
        (found["nll"].value, found["nll"].low, found["nll"].high),
        (found["perplexity"].value, found["perplexity"].low, found["perplexity"].high),
        strict=True,
    ):
        assert of_nll is not None
        assert of_perplexity == pytest.approx(np.exp(of_nll), rel=1e-3)


def test_draws_are_those_of_the_seed_whatever_is_summed() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    whole = resample_sums(values, 50, 7)
    assert np.allclose(resample_sums(values[:, 1:], 50, 7), whole[:, 1:], rtol=1e-12, atol=1e-12)
    assert not np.allclose(resample_sums(values, 50, 8), whole)
