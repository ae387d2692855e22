"""The Bradley-Terry model of comparisons, with or without features of style (Bradley & Terry 1952).

    P(first beats second) = sigmoid(s_first - s_second + features @ c)

s: strength of each player in nats, that of the baseline 0. A tie is half a win of each. A comparison may count several
times (weight). Fitted by maximum likelihood; Elo's scale would be 400 / ln 10 times s. Where nobody meets anybody but
the baseline, and there are no features, sigmoid(s) is the mean outcome, weighted.

Style control as of Chatbot Arena (Li et al. 2024, "Does style matter?"): with features in the fit, s is what is left
when style is what it is on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PRIOR = 1e-6
"""Precision of a prior of s and c around 0: a player that always wins has no finite strength without one."""
_MOST_STEPS = 100


@dataclass(frozen=True)
class Comparison:
    """Battles. first, second: players, from 0. outcome: 0 to 1, 1 where the first wins. weight: how often one counts.

    features: of style, [battles, k], k may be 0. All are [battles].
    """

    first: Ints
    second: Ints
    outcome: Floats
    weight: Floats
    features: Floats

    def taken(self, places: Ints) -> Comparison:
        """These battles, in this order; some may come several times."""
        parts = (self.first, self.second, self.outcome, self.weight, self.features)
        return Comparison(*(part[places] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Strengths:
    """players [players]: s, the baseline's 0. style [k]: c."""

    players: Floats
    style: Floats


def fit(battles: Comparison, players: int, baseline: int, start: Strengths | None = None) -> Strengths:
    """Maximum likelihood by Newton's method. start: where to begin, for fits that are nearly alike."""
    n = len(battles.outcome)
    terms = np.zeros((n, players))
    np.add.at(terms, (np.arange(n), battles.first), 1.0)
    np.add.at(terms, (np.arange(n), battles.second), -1.0)
    terms = np.concatenate([np.delete(terms, baseline, axis=1), battles.features], axis=1)
    w = np.zeros(terms.shape[1])
    if start is not None:
        w = np.concatenate([np.delete(start.players, baseline), start.style])
    for _ in range(_MOST_STEPS):
        p = expit(terms @ w)
        slope = terms.T @ (battles.weight * (p - battles.outcome)) + _PRIOR * w
        curvature = (terms * (battles.weight * p * (1 - p))[:, None]).T @ terms + _PRIOR * np.eye(len(w))
        step = np.linalg.solve(curvature, slope)
        largest = float(np.abs(step).max(initial=0.0))
        w = w - step * min(1.0, 2.0 / max(largest, 1e-300))
        if largest < 1e-9:
            break
    return Strengths(np.insert(w[: players - 1], baseline, 0.0), w[players - 1 :])


def bootstrap(
    battles: Comparison, groups: Ints, players: int, baseline: int, rounds: int, seed: int
) -> tuple[Strengths, list[Strengths]]:
    """The fit, and fits of resamples of the groups: battles of one group (a question) are drawn together.

    groups: of each battle, numbered from 0 without gaps.
    """
    whole = fit(battles, players, baseline)
    order = np.argsort(groups, kind="stable")
    count = int(groups.max()) + 1
    members = np.split(order, np.cumsum(np.bincount(groups, minlength=count))[:-1])
    rng = np.random.default_rng(seed)
    fits = []
    for _ in range(rounds):
        drawn = np.bincount(rng.integers(0, count, count), minlength=count)
        times = np.concatenate([np.full(len(members[g]), drawn[g]) for g in range(count)])
        places = order[times > 0]
        taken = battles.taken(places)
        heavier = Comparison(taken.first, taken.second, taken.outcome, taken.weight * times[times > 0], taken.features)
        fits.append(fit(heavier, players, baseline, whole))
    return whole, fits
