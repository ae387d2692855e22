"""Win rates at equal length: a linear model of a judge's preferences (Dubois et al. 2024, arXiv 2404.04475).

    P(model beats baseline on x) = sigmoid(theta + phi * tanh(d / sd(d)) + psi * gamma_x)

d: length of the baseline's answer minus that of the model's, in characters; sd over the rows of the model, n - 1 in the
denominator, no mean subtracted. gamma_x: difficulty of instruction x, the same for all models. The length-controlled
win rate is the mean over the model's rows of the prediction with the length term at 0.

`published_fit` is what alpaca_eval 0.6.6 does (metrics/glm_winrate.py, length_controlled_v1), read off its source: no
intercept; cross-entropy to preferences between 0 and 1; an L1 penalty |w| + C * loss with C of ten values from 1e-4 to
1e4, evenly in the logarithm, the one of the best mean held-out loss over 5 folds of rows, then fitted on all rows. To
the model's rows, weight 1, come those of two baselines that were told to be concise and verbose, weight 0.1 each,
without the constant: they hold phi and psi where a model hardly ever wins. These rows and gamma come from df_gamed.csv,
a file on the hub. Nothing is clipped but probabilities of the held-out loss, at 1e-15.

`joint_fit` and `anchored_fit` are ours, for where that file is not. As in the published procedure gamma comes first,
from all models at once with psi = 1 (alpaca_eval's notebook on instruction difficulty; L1 there, here normal priors, of
a width that held-out loss chooses), then each model is fitted alone. What the gamed baselines' 161 rows of weight
do to phi and psi is done by normal priors: phi around the mean over the models, psi around 1, each with the precision
10 that such rows have (161 * p(1-p) * mean square of the term = 161 * 0.2 * 0.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
STRENGTHS = np.logspace(-4, 4, 10)
"""C of the L1 fit."""
GAMED_WEIGHT = 0.1
"""Of each row of a gamed baseline: 0.2, for two of them."""
ANCHOR = 10.0
"""Precision of the priors of phi and psi; the module says where it comes from."""
WIDTHS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Precisions of the prior of gamma among which held-out loss chooses."""
_NO_PRIOR = 1e-6  # keeps the equations solvable where a model never wins


@dataclass(frozen=True)
class Comparisons:
    """The rows of one model. preference: 0 to 1, 1 for the model. length: the length term, see `length_term`.

    instruction: which of the instructions, from 0. All are [rows].
    """

    preference: Floats
    length: Floats
    instruction: Ints


@dataclass(frozen=True)
class Controlled:
    """A model's fit. predictions [rows]: P(model wins) at equal length. theta, phi, psi: as the module has them.

    strength: C of an L1 fit that held-out loss chose; None for the other fits.
    """

    predictions: Floats
    theta: float
    phi: float
    psi: float
    strength: float | None = None

    @property
    def rate(self) -> float:
        """The length-controlled win rate, 0 to 1."""
        return float(self.predictions.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean of the predictions over rows, as alpaca_eval has it; the fit's own error is not in it."""
        return float(self.predictions.std(ddof=1) / np.sqrt(len(self.predictions)))


def length_term(baseline: Sequence[int] | Floats, model: Sequence[int] | Floats) -> Floats:
    """tanh(d / sd(d)) of two lists of lengths; zeros where all differences are the same, and nothing can be told."""
    difference = np.asarray(baseline, dtype=np.float64) - np.asarray(model, dtype=np.float64)
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)


def cross_entropy(preference: Floats, predicted: Floats) -> Floats:
    """Of each row, in nats; predictions are kept 1e-15 from 0 and 1."""
    p = np.clip(predicted, 1e-15, 1 - 1e-15)
    return -(preference * np.log(p) + (1 - preference) * np.log(1 - p))


def l1_fit(terms: Floats, preference: Floats, weight: Floats, strength: float) -> Floats:
    """argmin over w of |w| + strength * sum of weight * cross entropy of sigmoid(terms @ w). terms: [rows, k]."""
    k = terms.shape[1]

    def loss(halves: Floats) -> tuple[float, Floats]:
        logits = terms @ (halves[:k] - halves[k:])
        entropy = np.logaddexp(0, logits) - preference * logits
        slope = strength * (terms.T @ (weight * (expit(logits) - preference)))
        return float(strength * (weight @ entropy) + halves.sum()), np.concatenate([slope + 1, 1 - slope])

    # w = u - v with u, v >= 0 makes the penalty smooth; at the optimum one of the two is 0.
    options = {"maxiter": 5000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(loss, np.zeros(2 * k), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * k), options=options)
    return np.asarray(found.x[:k] - found.x[k:])


def l1_fit_cv(terms: Floats, preference: Floats, weight: Floats) -> tuple[Floats, float]:
    """The L1 fit at the strength of the best held-out loss, and that strength; see the module."""
    count = min(FOLDS, len(preference))
    folds = np.arange(len(preference))[::-1] % count
    losses = []
    for strength in STRENGTHS:
        of_folds = []
        for fold in range(count):
            seen, held = folds != fold, folds == fold
            w = l1_fit(terms[seen], preference[seen], weight[seen], float(strength))
            of_folds.append(np.mean(weight[held] * cross_entropy(preference[held], expit(terms[held] @ w))))
        losses.append(np.mean(of_folds))
    best = float(STRENGTHS[int(np.argmin(losses))])
    return l1_fit(terms, preference, weight, best), best


def published_fit(rows: Comparisons, difficulty: Floats, gamed: tuple[Floats, Floats, Floats]) -> Controlled:
    """alpaca_eval's length_controlled_v1. difficulty: gamma [instructions].

    gamed: of the gamed baselines' rows the preference, d / sd(d) and gamma, each [rows of these].
    """
    preference, length, of_gamed = gamed
    gamma = difficulty[rows.instruction]
    own = np.stack([rows.length, gamma, np.ones_like(gamma)], axis=1)
    theirs = np.stack([np.tanh(length), of_gamed, np.zeros_like(of_gamed)], axis=1)
    weight = np.concatenate([np.full(len(theirs), GAMED_WEIGHT), np.ones(len(own))])
    w, strength = l1_fit_cv(np.concatenate([theirs, own]), np.concatenate([preference, rows.preference]), weight)
    return Controlled(expit(own[:, 1:] @ w[1:]), float(w[2]), float(w[0]), float(w[1]), strength)


def plain_fit(rows: Comparisons) -> Controlled:
    """The model without difficulty and without gamed baselines: alpaca_eval's length_controlled_minimal.

    With one model that hardly ever wins phi is known badly, and so is the win rate at equal length.
    """
    terms = np.stack([rows.length, np.ones_like(rows.length)], axis=1)
    w, strength = l1_fit_cv(terms, rows.preference, np.ones(len(terms)))
    return Controlled(np.full(len(terms), expit(w[1])), float(w[1]), float(w[0]), 0.0, strength)


@dataclass(frozen=True)
class Joint:
    """difficulty: gamma [instructions]. phi: mean over models of the length coefficient. width: prior's precision.

    held_out: mean cross entropy of held-out rows, by that precision.
    """

    difficulty: Floats
    phi: float
    width: float
    held_out: dict[float, float]


def joint_fit(models: Sequence[Comparisons], instructions: int, seed: int) -> Joint:
    """The difficulty of every instruction from all models at once, theta and phi of each beside it.

    The precision of gamma's prior is that of `WIDTHS` with the best loss on held-out rows (5 folds of all rows, drawn
    by the seed), so that nothing is chosen by hand.
    """
    rows = Comparisons(
        np.concatenate([m.preference for m in models]),
        np.concatenate([m.length for m in models]),
        np.concatenate([m.instruction for m in models]),
    )
    of = np.concatenate([np.full(len(m.preference), j) for j, m in enumerate(models)])
    folds = np.random.default_rng(seed).permutation(len(of)) % FOLDS
    held_out = {}
    for width in WIDTHS:
        loss = 0.0
        for fold in range(FOLDS):
            seen, held = folds != fold, folds == fold
            w, gamma = _joint(rows, of, seen, len(models), instructions, width)
            logits = _terms(rows, of, held, len(models)) @ w + gamma[rows.instruction[held]]
            loss += float(cross_entropy(rows.preference[held], expit(logits)).sum())
        held_out[width] = loss / len(of)
    width = min(held_out, key=lambda w: held_out[w])
    w, gamma = _joint(rows, of, np.ones(len(of), dtype=bool), len(models), instructions, width)
    return Joint(gamma, float(w[-1] + w[len(models) : -1].mean()), width, held_out)


def anchored_fit(rows: Comparisons, joint: Joint) -> Controlled:
    """One model with the difficulties of `joint_fit`, phi and psi held by normal priors; see the module."""
    gamma = joint.difficulty[rows.instruction]
    terms = np.stack([rows.length, gamma, np.ones_like(gamma)], axis=1)
    centre, precision = np.array([joint.phi, 1.0, 0.0]), np.array([ANCHOR, ANCHOR, _NO_PRIOR])
    w = centre.copy()
    for _ in range(_MOST_STEPS):
        p = expit(terms @ w)
        slope = terms.T @ (p - rows.preference) + precision * (w - centre)
        step = np.linalg.solve((terms * (p * (1 - p))[:, None]).T @ terms + np.diag(precision), slope)
        w -= _shorter(step) * step
        if np.abs(step).max() < 1e-10:
            break
    return Controlled(expit(terms[:, 1:] @ w[1:]), float(w[2]), float(w[0]), float(w[1]))


_MOST_STEPS = 200


def _shorter(step: Floats) -> float:
    """What a Newton step is multiplied by: far from the optimum a whole one may overshoot."""
    return min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-300))


def _terms(rows: Comparisons, of: Ints, which: NDArray[np.bool_], models: int) -> Floats:
    """[rows, 2 * models + 1]: a constant and a length term for each model, and the length term of all."""
    places = np.arange(int(which.sum()))
    terms = np.zeros((len(places), 2 * models + 1))
    terms[places, of[which]] = 1
    terms[places, models + of[which]] = terms[:, -1] = rows.length[which]
    return terms


def _joint(
    rows: Comparisons, of: Ints, which: NDArray[np.bool_], models: int, instructions: int, width: float
) -> tuple[Floats, Floats]:
    """Newton's method; gamma's block of the Hessian is diagonal, so that only that of the models is solved."""
    terms, preference, instruction = _terms(rows, of, which, models), rows.preference[which], rows.instruction[which]
    precision = np.concatenate([np.full(models, _NO_PRIOR), np.full(models, ANCHOR), [_NO_PRIOR]])
    w, gamma = np.zeros(terms.shape[1]), np.zeros(instructions)
    for _ in range(_MOST_STEPS):
        p = expit(terms @ w + gamma[instruction])
        curvature = p * (1 - p)
        slope = terms.T @ (p - preference) + precision * w
        slope_gamma = np.bincount(instruction, p - preference, instructions) + width * gamma
        diagonal = np.bincount(instruction, curvature, instructions) + width
        mixed = np.zeros((instructions, terms.shape[1]))
        np.add.at(mixed, instruction, terms * curvature[:, None])
        schur = (terms * curvature[:, None]).T @ terms + np.diag(precision) - mixed.T @ (mixed / diagonal[:, None])
        step = np.linalg.solve(schur, slope - mixed.T @ (slope_gamma / diagonal))
        step_gamma = (slope_gamma - mixed @ step) / diagonal
        both = np.concatenate([step, step_gamma])
        w -= _shorter(both) * step
        gamma -= _shorter(both) * step_gamma
        if np.abs(both).max() < 1e-9:
            break
    return w, gamma
