"""Intervals of ratios of sums by a bootstrap over units that are drawn together (Efron and Tibshirani 1993, ch. 13).

    theta = (sum of num) / (sum of den)      over all units
    theta*_b                                 the same over as many units, drawn with replacement; b = 1 ... B
    interval                                 the 2.5 % and 97.5 % quantiles of theta*

Numerators and denominators of a unit are drawn together, and all ratios of one call share their draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from prefopt.evaluate.measure import Figure

_AT_ONCE = 4_000_000
"""Numbers in memory at once, of the counts of some resamples."""


class Ratio(NamedTuple):
    """num, den [n]: of each unit; num is 0 where den is."""

    num: np.ndarray
    den: np.ndarray


class Derived(NamedTuple):
    """A figure that follows from ratios. value: of their names' arrays, all of one shape. units: how many it counts."""

    value: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    units: int


def figures_of(
    ratios: Mapping[str, Ratio], derived: Mapping[str, Derived], units: np.ndarray, resamples: int, seed: int
) -> dict[str, Figure]:
    """Every ratio and what is derived of them, with 95 % intervals, which a single unit does not have.

    units [n]: the unit that each entry belongs to, as whole numbers from 0. Ratios of nothing (a sum of den of 0) are
    left out. The order is that of `ratios`, then of `derived`.
    """
    known = {name: ratio for name, ratio in ratios.items() if ratio.den.sum() > 0}
    number = int(units.max()) + 1 if len(units) else 0
    columns = [np.bincount(units, weights=part, minlength=number) for ratio in known.values() for part in ratio]
    sums = np.stack(columns, axis=1) if columns else np.zeros((number, 0))
    exact = _named(sums.sum(axis=0)[None], known)
    drawn = _named(resample_sums(sums, resamples, seed), known) if number > 1 else None
    found = {}
    for name, ratio in known.items():
        found[name] = _figure(exact[name], None if drawn is None else drawn[name], int(ratio.den.sum()))
    for name, one in derived.items():
        found[name] = _figure(one.value(exact), None if drawn is None else one.value(drawn), one.units)
    return found


def resample_sums(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """[resamples, m]: sums of `values` [n, m] over n units drawn with replacement. The draws are those of the seed,
    whatever is summed."""
    random = np.random.Generator(np.random.Philox(key=seed))
    n = len(values)
    sums = np.empty((resamples, values.shape[1]))
    at_once = max(1, _AT_ONCE // max(1, n))
    for start in range(0, resamples, at_once):
        stop = min(start + at_once, resamples)
        counts = np.stack([np.bincount(random.integers(0, n, n), minlength=n) for _ in range(start, stop)])
        sums[start:stop] = counts.astype(np.float64) @ values
    return sums


def _named(sums: np.ndarray, ratios: Mapping[str, Ratio]) -> dict[str, np.ndarray]:
    """Each ratio of sums [b, 2 * ratios]; NaN where a draw has none of its units."""
    found = {}
    for place, name in enumerate(ratios):
        num, den = sums[:, 2 * place], sums[:, 2 * place + 1]
        found[name] = np.divide(num, den, out=np.full(len(num), np.nan), where=den > 0)
    return found


def _figure(exact: np.ndarray, drawn: np.ndarray | None, count: int) -> Figure:
    value = float(exact[0])
    if drawn is None or not len(whole := drawn[np.isfinite(drawn)]):
        return Figure(value, count=count)
    low, high = np.quantile(whole, [0.025, 0.975])
    return Figure(value, float(low), float(high), count)
