"""Bootstrap intervals by weights: a resample is how often each row was drawn (Efron and Tibshirani 1993, chapter 13).

Every interval is the 95 % percentile interval. The same seed and the same number of rows give the same draws, so two
quantities of the same rows are resampled together, and intervals do not depend on what else is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from prefopt.evaluate.measure import Figure

Statistic = Callable[[np.ndarray], float]
"""A number of n rows as a function of their weights, [n] of whole numbers; NaN where it is not defined."""


def draws(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """`resamples` times how often each of n rows is drawn, when n are drawn with replacement: [n] of int64."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, n, n), minlength=n)


def interval(statistic: Statistic, n: int, resamples: int, seed: int) -> tuple[float, float] | None:
    """The bounds of a statistic of n rows, which is given their weights.

    Resamples in which it is not defined (NaN) do not count; None where fewer than half of them are left.
    """
    found = np.array([statistic(weights) for weights in draws(n, resamples, seed)])
    found = found[~np.isnan(found)]
    if len(found) < max(1, resamples / 2):
        return None
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def mean_figure(values: np.ndarray, resamples: int, seed: int) -> Figure:
    """The mean of one number per row, [n] with n >= 1, and its interval."""
    numbers = np.asarray(values, dtype=np.float64)
    bounds = interval(lambda w: float(w @ numbers) / len(numbers), len(numbers), resamples, seed)
    low, high = bounds or (None, None)
    return Figure(math.fsum(numbers) / len(numbers), low, high, len(numbers))


def difference_figure(first: Statistic, second: Statistic, n: int, resamples: int, seed: int) -> Figure | None:
    """first - second of the same n rows, which are resampled together; None where it is not defined."""
    value = first(np.ones(n, dtype=np.int64)) - second(np.ones(n, dtype=np.int64))
    if math.isnan(value):
        return None
    low, high = interval(lambda weights: first(weights) - second(weights), n, resamples, seed) or (None, None)
    return Figure(value, low, high, n)
