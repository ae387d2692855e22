"""The figures of a scored set: sums over its rows, as ratios that can be drawn anew, under the names of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from prefopt.evaluate.measure import Figure
from prefopt.evaluate.resampling import Derived, Ratio, figures_of
from prefopt.evaluate.scored_set import Judgement, ScoredSet


@dataclass
class _Terms:
    """What becomes a figure. num_rows: entries of every ratio."""

    num_rows: int
    ratios: dict[str, Ratio] = field(default_factory=dict)
    derived: dict[str, Derived] = field(default_factory=dict)

    def mean(self, name: str, values: np.ndarray, rows: np.ndarray, weights: np.ndarray | None = None) -> None:
        """The mean of values, or their sum over that of `weights`. rows: the row that each value belongs to."""
        num = np.bincount(rows, weights=values, minlength=self.num_rows)
        self.ratios[name] = Ratio(num, np.bincount(rows, weights=weights, minlength=self.num_rows).astype(np.float64))


def preference_figures(
    scored: ScoredSet,
    judgement: Judgement | None,
    categories: Sequence[str | None] | None,
    resamples: int,
    seed: int,
    kl: bool = False,
) -> dict[str, Figure]:
    """Every figure of a set, named without the set.

    judgement: of the method, or None. categories: of the rows, or None. kl: whether that is a figure.
    Rows of equal prompts are drawn together.
    """
    terms = _Terms(len(scored.data))
    rewards = scored.policy.get("rewards") if judgement is None else judgement.rewards
    if judgement is not None:
        _add_loss(terms, judgement)
    if rewards is not None:
        _add_rewards(terms, scored, rewards.astype(np.float64))
    if "logps" in scored.policy:
        _add_logps(terms, scored)
    if scored.reference is not None and "logps" in scored.policy:
        _add_logratios(terms, scored)
    if kl:
        _add_kl(terms, scored)
    lengths = scored.policy["lengths"].astype(np.float64)
    _add_chosen_rejected(terms, "length", lengths, scored)
    _add_labelled(terms, "length", lengths, scored)
    if categories is not None:
        _add_categories(terms, "rewards/accuracy" if rewards is not None else "logps/accuracy", categories)
    _, units = np.unique(scored.data.prompt_hashes, return_inverse=True)
    found = figures_of(terms.ratios, terms.derived, units, resamples, seed)
    if scored.kl is not None:
        found["kl"] = Figure(scored.kl, count=len(scored.data))
    return {name: found[name] for name in sorted(found, key=_order)}


def kl_of_responses(policy: Mapping[str, np.ndarray]) -> np.ndarray:
    """[R] nats: KL(policy || reference) summed over the positions of each response, from the columns of the policy."""
    lengths = policy["lengths"]
    of_token = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(of_token, weights=policy["reverse_kl"], minlength=len(lengths))


def _order(name: str) -> tuple[int, str]:
    """Loss and rewards come first."""
    first = ("loss", "rewards/accuracy", "rewards/margin", "rewards")
    for place, begins in enumerate(first):
        if name == begins or name.startswith(begins + "/"):
            return place, name
    return len(first), name


def _add_loss(terms: _Terms, judgement: Judgement) -> None:
    for name, term in judgement.terms.items():
        terms.ratios[f"loss/{name}"] = Ratio(term.sums, term.counts)
    weights = {f"loss/{name}": t.weight for name, t in judgement.terms.items() if t.counts.sum() > 0}
    if not weights:
        return

    def total(ratios: Mapping[str, np.ndarray]) -> np.ndarray:
        """A term that a draw has no unit of is 0, as in training."""
        return sum((w * np.nan_to_num(ratios[name]) for name, w in weights.items()), start=np.zeros(1))

    terms.derived["loss"] = Derived(total, int(max(term.counts.sum() for term in judgement.terms.values())))


def _add_chosen_rejected(terms: _Terms, name: str, values: np.ndarray, scored: ScoredSet) -> None:
    """The mean of a column of responses over the chosen and over the rejected of all pairs."""
    rows = scored.example[scored.pairs[:, 0]]
    for side, column in (("chosen", 0), ("rejected", 1)):
        terms.mean(f"{name}/{side}", values[scored.pairs[:, column]], rows)


def _add_labelled(terms: _Terms, name: str, values: np.ndarray, scored: ScoredSet) -> None:
    """The mean of a column over desirable and over undesirable responses, where the data have labels."""
    if (labels := scored.labels) is not None:
        for side, which in (("desirable", labels), ("undesirable", ~labels)):
            terms.mean(f"{name}/{side}", values[which], scored.example[which])


def _add_accuracy(terms: _Terms, name: str, values: np.ndarray, scored: ScoredSet) -> None:
    """The share of pairs whose chosen response has more; a tie counts half."""
    difference = values[scored.pairs[:, 0]] - values[scored.pairs[:, 1]]
    terms.mean(name, (np.sign(difference) + 1) / 2, scored.example[scored.pairs[:, 0]])


def _add_rewards(terms: _Terms, scored: ScoredSet, rewards: np.ndarray) -> None:
    _add_chosen_rejected(terms, "rewards", rewards, scored)
    _add_accuracy(terms, "rewards/accuracy", rewards, scored)
    margins = rewards[scored.pairs[:, 0]] - rewards[scored.pairs[:, 1]]
    terms.mean("rewards/margin", margins, scored.example[scored.pairs[:, 0]])
    _add_labelled(terms, "rewards", rewards, scored)


def _add_logps(terms: _Terms, scored: ScoredSet) -> None:
    logps, lengths = scored.policy["logps"], scored.policy["lengths"]
    for name, values in (("logps", logps), ("mean_logps", logps / lengths)):
        _add_chosen_rejected(terms, name, values, scored)
        _add_accuracy(terms, f"{name}/accuracy", values, scored)
    _add_labelled(terms, "logps", logps, scored)
    best = scored.best
    terms.mean("nll", -logps[best], scored.example[best], lengths[best].astype(np.float64))
    with np.errstate(over="ignore"):
        if np.isfinite(np.exp(-logps[best].sum() / lengths[best].sum())):  # above e^709 the nll says it all
            terms.derived["perplexity"] = Derived(lambda ratios: np.exp(ratios["nll"]), int(lengths[best].sum()))


def _add_logratios(terms: _Terms, scored: ScoredSet) -> None:
    """Log-ratios of the given responses, which are no samples of the policy."""
    assert scored.reference is not None
    ratios = scored.policy["logps"] - scored.reference["logps"]
    _add_chosen_rejected(terms, "logratio", ratios, scored)
    _add_per_token(terms, "logratio_per_token", ratios, scored)


def _add_kl(terms: _Terms, scored: ScoredSet) -> None:
    sums = kl_of_responses(scored.policy)
    _add_chosen_rejected(terms, "kl", sums, scored)
    _add_per_token(terms, "kl_per_token", sums, scored)


def _add_per_token(terms: _Terms, name: str, sums: np.ndarray, scored: ScoredSet) -> None:
    """The sum of a column over the chosen, and over the rejected, of all pairs by that of their tokens."""
    lengths = scored.policy["lengths"].astype(np.float64)
    for side, column in (("chosen", 0), ("rejected", 1)):
        of_pairs = scored.pairs[:, column]
        terms.mean(f"{name}/{side}", sums[of_pairs], scored.example[of_pairs], lengths[of_pairs])


def _add_categories(terms: _Terms, name: str, categories: Sequence[str | None]) -> None:
    """The accuracy of each category, and their mean."""
    whole = terms.ratios[name]
    names = []
    for category in sorted({c for c in categories if c is not None}):
        is_in = np.array([c == category for c in categories])
        of_category = Ratio(np.where(is_in, whole.num, 0), np.where(is_in, whole.den, 0))
        if of_category.den.sum() > 0:
            names.append(f"{name}/{category}")
            terms.ratios[names[-1]] = of_category
    if names:
        count = int(sum(terms.ratios[one].den.sum() for one in names))
        terms.derived[f"{name}/categories"] = Derived(
            # In a draw without rows of a category, the mean is over the others.
            lambda ratios: np.nanmean(np.stack([ratios[one] for one in names]), axis=0),
            count,
        )
