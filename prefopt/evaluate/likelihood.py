"""Does a reward rank as the likelihood does, and does the likelihood follow length? Pure functions of numbers.

The analysis is that of Meng et al. 2024 (SimPO, arXiv 2405.14734, section 4, figure 4): a model generates by its
likelihood, for which the mean log-probability per token stands, while DPO's reward is a log-ratio to a reference. So
r(chosen) > r(rejected) need not mean that the chosen response is likelier. They report that for about half of the
training pairs of DPO it does not; SimPO's reward is that mean times a constant, so the two rankings are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from prefopt.evaluate.measure import Figure
from prefopt.evaluate.resample import Statistic, interval, mean_figure


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho. low, high: of its 95 % interval, None where it is not defined. p: two-sided, that there is no
    monotone relation; it takes the responses for independent. count: responses.
    """

    rho: float
    low: float | None
    high: float | None
    p: float
    count: int

    @property
    def figure(self) -> Figure:
        """Without the p-value."""
        return Figure(self.rho, self.low, self.high, self.count)


@dataclass(frozen=True)
class Contingency:
    """Two rankings of the same pairs, in numbers of pairs.

    both: chosen first by reward and by likelihood. reward_only, likelihood_only: chosen first by one of them, rejected
    first by the other. neither: rejected first by both. tied: pairs of equal reward or equal likelihood, which stand
    in no cell.
    """

    both: int
    reward_only: int
    likelihood_only: int
    neither: int
    tied: int

    @property
    def ranked(self) -> int:
        """Pairs in the four cells."""
        return self.both + self.reward_only + self.likelihood_only + self.neither

    def table(self) -> list[dict[str, str | float | int]]:
        """The 2x2 table as shares of the ranked pairs, rows by reward, columns by likelihood; empty without pairs."""
        if not self.ranked:
            return []
        rows = (
            ("chosen first", self.both, self.reward_only),
            ("rejected first", self.likelihood_only, self.neither),
        )
        return [
            {
                "by reward": name,
                "by likelihood: chosen first": likely / self.ranked,
                "by likelihood: rejected first": unlikely / self.ranked,
                "pairs": likely + unlikely,
            }
            for name, likely, unlikely in rows
        ]


def weighted_spearman(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Spearman's rho of a sample in which row i occurs weights[i] times: Pearson's correlation of the mean ranks.

    first, second: places of the values among the sorted distinct ones, [n] (np.unique's inverse). Rows of equal value
    share the mean of their ranks. NaN where one of the two is constant.
    """
    one, other = _mean_ranks(first, weights), _mean_ranks(second, weights)
    total = weights.sum()
    one, other = one - (weights @ one) / total, other - (weights @ other) / total
    scale = np.sqrt((weights @ one**2) * (weights @ other**2))
    return float((weights @ (one * other)) / scale) if scale > 0 else float("nan")


def spearman_of(first: Sequence[float], second: Sequence[float], groups: Sequence[int]) -> Statistic:
    """`weighted_spearman` of two numbers per response as a function of the weights of groups, numbered from 0."""
    one, other = (np.unique(np.asarray(values, float), return_inverse=True)[1] for values in (first, second))
    group = np.asarray(groups, int)
    return lambda weights: weighted_spearman(one, other, weights[group])


def accuracy_of(margins: Sequence[float]) -> Statistic:
    """`accuracy` as a function of the weights of pairs."""
    right = (np.sign(np.asarray(margins, float)) + 1) / 2
    return lambda weights: float((weights @ right) / weights.sum())


def agreement_of(first: Sequence[float], second: Sequence[float]) -> Statistic:
    """`agreement` as a function of the weights of pairs; NaN where those that have weight are all tied."""
    one, other = np.sign(np.asarray(first, float)), np.sign(np.asarray(second, float))
    ranked = (one != 0) & (other != 0)
    same = ranked & (one == other)

    def share(weights: np.ndarray) -> float:
        total = weights @ ranked
        return float((weights @ same) / total) if total else float("nan")

    return share


def spearman(
    first: Sequence[float], second: Sequence[float], groups: Sequence[int], resamples: int, seed: int
) -> Correlation | None:
    """Rank correlation of two numbers per response, with an interval from resampled groups.

    groups: of each response, from 0: the two responses of a pair share a prompt and are drawn together.
    None for fewer than 3 responses or where one of the two numbers is the same for all.
    """
    one, other, group = np.asarray(first, float), np.asarray(second, float), np.asarray(groups, int)
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    result = stats.spearmanr(one, other)
    bounds = interval(spearman_of(first, second, groups), int(group.max()) + 1, resamples, seed)
    low, high = bounds or (None, None)
    return Correlation(float(result.statistic), low, high, float(result.pvalue), len(one))


def contingency(reward_margins: Sequence[float], likelihood_margins: Sequence[float]) -> Contingency:
    """How two rankings of the same pairs meet. Margins: chosen minus rejected, one of each per pair."""
    reward, likely = np.sign(np.asarray(reward_margins, float)), np.sign(np.asarray(likelihood_margins, float))
    tied = (reward == 0) | (likely == 0)

    def count(one: int, other: int) -> int:
        return int(np.sum((reward == one) & (likely == other)))

    return Contingency(count(1, 1), count(1, -1), count(-1, 1), count(-1, -1), int(tied.sum()))


def accuracy(margins: Sequence[float], resamples: int, seed: int) -> Figure | None:
    """Share of pairs whose chosen response is first; a tie counts half. margins: chosen minus rejected."""
    signs = np.sign(np.asarray(margins, float))
    return mean_figure((signs + 1) / 2, resamples, seed) if len(signs) else None


def agreement(first: Sequence[float], second: Sequence[float], resamples: int, seed: int) -> Figure | None:
    """Share of pairs that two rankings put in the same order, among those that neither has as a tie; None without any.

    The diagonal of `contingency`.
    """
    one, other = np.sign(np.asarray(first, float)), np.sign(np.asarray(second, float))
    ranked = (one != 0) & (other != 0)
    return mean_figure((one == other)[ranked], resamples, seed) if ranked.any() else None


def _mean_ranks(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The rank of each row, from 1; rows of one value have the mean of the ranks that they take together."""
    of_value = np.bincount(places, weights=weights)
    return (np.cumsum(of_value) - (of_value - 1) / 2)[places]
