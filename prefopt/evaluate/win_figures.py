"""Figures of verdicts: win rates with intervals, agreement of the two orders, and what length has to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prefopt.evaluate.length_controlled import Comparisons as Lengths
from prefopt.evaluate.length_controlled import Floats, Ints, l1_fit, length_term, plain_fit
from prefopt.evaluate.matched import Matched
from prefopt.evaluate.measure import Figure
from prefopt.evaluate.verdicts import Verdict

_FITS = 200
"""Most resamples of the interval at equal length: each is a fit."""
_WIDE, _FAR = 20.0, 10.0
"""Points of its interval, and of its distance from the raw rate, from which the rate at equal length is doubted."""


def win_figures(pairs: Sequence[Matched], verdicts: Sequence[Verdict], resamples: int, seed: int) -> dict[str, Figure]:
    """All figures, rates in percent. Every verdict has a preference.

    Intervals are 95 % of a percentile bootstrap over questions; turns of one question are drawn together.
    """
    wins = np.array([verdict.preference for verdict in verdicts], dtype=np.float64)
    places: dict[str, int] = {}
    groups = np.array([places.setdefault(pair.model.id, len(places)) for pair in pairs])
    rng = np.random.default_rng(seed)

    def rate(values: Floats, among: Ints) -> Figure:
        return _mean(100 * values, among, resamples, rng)

    figures = {"win_rate": rate(wins, groups)}
    orders = np.array([verdict.orders for verdict in verdicts if verdict.orders is not None], dtype=np.float64)
    if len(orders):
        figures["orders/agreement"] = rate((orders[:, 0] == orders[:, 1]).astype(np.float64), groups)
        figures["orders/first_shown"] = rate((orders[:, 0] + 1 - orders[:, 1]) / 2, groups)
    lengths = np.array([[len(pair.model.response), len(pair.baseline.response)] for pair in pairs], dtype=np.float64)
    unequal = lengths[:, 0] != lengths[:, 1]
    if unequal.any():
        is_longer = lengths[unequal, 0] > lengths[unequal, 1]
        of_longer = np.where(is_longer, wins[unequal], 1 - wins[unequal])
        figures["longer/win_rate"] = rate(of_longer, groups[unequal])
    for column, name in enumerate(("model", "baseline")):
        figures[f"length/{name}"] = Figure(float(lengths[:, column].mean()), count=len(pairs))
    if len(pairs) > 1:
        figures["length_controlled_win_rate"] = _controlled(wins, lengths, groups, min(resamples, _FITS), rng)
    for category in sorted({pair.category for pair in pairs} - {""}):
        which = np.array([pair.category == category for pair in pairs])
        figures[f"win_rate/{category}"] = rate(wins[which], groups[which])
    return figures


def doubts(figures: Mapping[str, Figure]) -> tuple[str, ...]:
    """A note where the rate at equal length should not be leaned on: too few wins, or lengths that never meet."""
    raw, equal = figures["win_rate"], figures.get("length_controlled_win_rate")
    if equal is None or equal.low is None or equal.high is None:
        return ()
    if equal.high - equal.low <= _WIDE and abs(equal.value - raw.value) <= _FAR:
        return ()
    return (
        f"length_controlled_win_rate ({equal.low:.0f} to {equal.high:.0f}, raw {raw.value:.0f}) extrapolates: one model"
        " alone tells little of what length does to its win rate. Compare answers of like length.",
    )


def _mean(values: Floats, groups: Ints, resamples: int, rng: np.random.Generator) -> Figure:
    _, number = np.unique(groups, return_inverse=True)
    totals, counts = np.bincount(number, values), np.bincount(number)
    means = []
    for start in range(0, resamples, 100):
        drawn = rng.integers(0, len(totals), (min(100, resamples - start), len(totals)))
        means.append(totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Figure(float(values.mean()), float(low), float(high), len(values))


def _controlled(wins: Floats, lengths: Floats, groups: Ints, resamples: int, rng: np.random.Generator) -> Figure:
    """The GLM of `length_controlled` without difficulty; resamples are fitted at the strength chosen for the whole."""
    whole = plain_fit(Lengths(wins, length_term(lengths[:, 1], lengths[:, 0]), np.zeros(len(wins), dtype=np.int64)))
    assert whole.strength is not None
    count = int(groups.max()) + 1
    rates = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, count, count), minlength=count)[groups].astype(np.float64)
        drawn = times > 0
        # The spread of the differences is that of the resample, as it is of a sample.
        difference = np.repeat(lengths[drawn, 1] - lengths[drawn, 0], times[drawn].astype(np.int64))
        term = np.tanh((lengths[drawn, 1] - lengths[drawn, 0]) / max(float(np.std(difference)), 1e-300))
        terms = np.stack([term, np.ones_like(term)], axis=1)
        w = l1_fit(terms, wins[drawn], times[drawn], whole.strength)
        rates.append(100 / (1 + np.exp(-w[1])))
    low, high = np.percentile(rates, [2.5, 97.5])
    return Figure(100 * whole.rate, float(low), float(high), len(wins))
