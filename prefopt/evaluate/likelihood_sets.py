"""The figures, tables and rows of `measure=likelihood`, from scored pairs; the statistics are in `likelihood.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prefopt.evaluate.likelihood import (
    Contingency,
    accuracy,
    accuracy_of,
    agreement,
    agreement_of,
    contingency,
    spearman,
    spearman_of,
)
from prefopt.evaluate.measure import Figure, Measured
from prefopt.evaluate.resample import Statistic, difference_figure, mean_figure
from prefopt.evaluate.run_cost import RunCost, ratio
from prefopt.evaluate.scored_rows import ScoredPair, ScoredResponse

LIKELIHOODS = ("mean_logps", "logps")
"""Of a response: nats per token, by which models are said to generate, and nats in all."""

ONLY_HERE, ONLY_THERE = "only in rows, not in against", "only in against, not in rows"


@dataclass
class _Found:
    """What has been found so far."""

    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, count: int) -> None:
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count


def measure_sets(
    pairs: Sequence[ScoredPair],
    against: Sequence[ScoredPair] | None,
    costs: Sequence[RunCost],
    resamples: int,
    seed: int,
) -> Measured:
    """Every set of `pairs`, alone and beside the same pairs of another model."""
    found = _Found()
    sets = _by_set(pairs)
    others = _by_set(against or ())
    rows = []
    for name, of_set in sets.items():
        _alone(found, name, list(of_set.values()), resamples, seed)
        matched = [key for key in of_set if key in others.get(name, {})]
        if against is not None:
            found.leave_out(ONLY_HERE, len(of_set) - len(matched))
            found.leave_out(ONLY_THERE, len(others.get(name, {})) - len(matched))
            one, other = [of_set[key] for key in matched], [others[name][key] for key in matched]
            if matched:
                _alone(found, f"{name}/against", other, resamples, seed)
                _beside(found, name, one, other, resamples, seed)
            else:
                found.notes.append(f"{name}: no pair of this set is in both files")
        rows += [_row(pair, others.get(name, {}).get(key), against is not None) for key, pair in of_set.items()]
    if against is not None:
        for name in others.keys() - sets.keys():
            found.leave_out(ONLY_THERE, len(others[name]))
    _costs(found, costs)
    return Measured(found.figures, found.tables, rows, found.left_out, tuple(found.notes))


def margins(pairs: Sequence[ScoredPair], of: str) -> list[float | None]:
    """Chosen minus rejected, per pair; None where one of the two has no such number.

    of: reward, or one of `LIKELIHOODS`.
    """
    return [_minus(_of(pair.chosen, of), _of(pair.rejected, of)) for pair in pairs]


def _by_set(pairs: Sequence[ScoredPair]) -> dict[str, dict[str, ScoredPair]]:
    made: dict[str, dict[str, ScoredPair]] = {}
    for pair in pairs:
        made.setdefault(pair.set, {})[pair.id] = pair
    return made


def _of(response: ScoredResponse, name: str) -> float | None:
    return {"reward": response.reward, "logps": response.logps, "mean_logps": response.mean_logp}[name]


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _known(*columns: Sequence[float | None]) -> list[list[float]]:
    """The columns without the rows in which one of them has no number."""
    whole = [row for row in zip(*columns) if None not in row]
    return [[row[i] for row in whole if row[i] is not None] for i in range(len(columns))]


def _alone(found: _Found, name: str, pairs: list[ScoredPair], resamples: int, seed: int) -> None:
    """The figures of one model on one set. name: what they begin with."""
    rewards = margins(pairs, "reward")
    whose = " in against" if name.endswith("/against") else ""
    found.leave_out(f"no reward{whose}", sum(margin is None for margin in rewards))
    found.leave_out(f"no log-probabilities{whose}", sum(margin is None for margin in margins(pairs, "logps")))
    _put(found, f"{name}/rewards/accuracy", accuracy(_known(rewards)[0], resamples, seed))
    if len({pair.row for pair in pairs}) < len(pairs):
        found.notes.append(
            f"{name}: some rows have several pairs; intervals draw pairs, and a response counts once a pair"
        )
    correlations = []
    for kind in LIKELIHOODS:
        likely = margins(pairs, kind)
        _put(found, f"{name}/{kind}/accuracy", accuracy(_known(likely)[0], resamples, seed))
        by_reward, by_likelihood = _known(rewards, likely)
        _put(found, f"{name}/{kind}/agreement", agreement(by_reward, by_likelihood, resamples, seed))
        table = contingency(by_reward, by_likelihood)
        if table.ranked:
            found.tables[f"{name}/contingency/{kind}"] = table.table()
        _note_ties(found, name, kind, table)
        correlations += _correlations(found, name, kind, pairs, resamples, seed)
    if correlations:
        found.tables[f"{name}/correlations"] = correlations


def _put(found: _Found, name: str, figure: Figure | None) -> None:
    if figure is not None:
        found.figures[name] = figure


def _note_ties(found: _Found, name: str, kind: str, table: Contingency) -> None:
    if table.tied:
        total = table.ranked + table.tied
        found.notes.append(
            f"{name}: {table.tied} of {total} pairs have equal rewards or equal {kind} and stand in no cell of"
            f" {name}/contingency/{kind}"
        )


def _correlations(
    found: _Found, name: str, kind: str, pairs: list[ScoredPair], resamples: int, seed: int
) -> list[dict[str, Any]]:
    rows = []
    for of in ("chosen", "rejected", "both"):
        sides = ("chosen", "rejected") if of == "both" else (of,)
        responses = [(place, getattr(pair, side)) for place, pair in enumerate(pairs) for side in sides]
        scored = [(place, r, _of(r, kind)) for place, r in responses if r.logps is not None]
        if not scored:
            continue
        # Pairs without log-probabilities leave no gap: groups are numbered anew.
        number = {place: i for i, place in enumerate(dict.fromkeys(place for place, _, _ in scored))}
        known = [value for _, _, value in scored if value is not None]
        groups = [number[place] for place, _, _ in scored]
        result = spearman(known, [r.tokens for _, r, _ in scored], groups, resamples, seed)
        if result is None:
            why = f"{len(known)} responses" if len(known) < 3 else f"all lengths or all {kind} are equal"
            found.notes.append(f"{name}: no correlation of {kind} with length over {of} responses: {why}")
            continue
        found.figures[f"{name}/{kind}/length_spearman/{of}"] = result.figure
        cells = {"rho": result.rho, "low": result.low, "high": result.high, "p": result.p, "count": result.count}
        rows.append({"of": kind, "responses": of, **cells})
    return rows


def _beside(
    found: _Found, name: str, here: list[ScoredPair], there: list[ScoredPair], resamples: int, seed: int
) -> None:
    """Two models on the same pairs: how often they disagree, and the differences, with paired intervals."""
    disagreements = []
    for of in ("reward", *LIKELIHOODS):
        known = _known(margins(here, of), margins(there, of))
        one, other = (np.sign(column) for column in known)
        if not len(one):
            continue
        metric = "rewards" if of == "reward" else of
        cells = [int(np.sum(is_so)) for is_so in (one != other, (one > 0) & (other <= 0), (other > 0) & (one <= 0))]
        names = ("pairs ranked otherwise", "chosen first here alone", "chosen first in against alone")
        disagreements.append({"by": metric, **dict(zip(names, cells)), "pairs": len(one)})
        found.figures[f"{name}/disagreement/{metric}"] = mean_figure(one != other, resamples, seed)
    if disagreements:
        found.tables[f"{name}/disagreement"] = disagreements
        found.tables[f"{name}/side_by_side"] = _differences(here, there, resamples, seed)


def _differences(here: list[ScoredPair], there: list[ScoredPair], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Each figure of the pairs for which both models have what it takes, and their difference."""
    rows = []
    for name, (number, needed, statistic) in _STATISTICS.items():
        whole = [
            (one, other)
            for one, other in zip(here, there)
            if all(None not in margins([one, other], of) for of in needed)
        ]
        if not whole:
            continue
        first, second = (statistic(list(pairs), number) for pairs in zip(*whole))
        gap = difference_figure(first, second, len(whole), resamples, seed)
        if gap is not None:
            ones = np.ones(len(whole), dtype=np.int64)
            values = {"here": first(ones), "against": second(ones), "difference": gap.value}
            rows.append({"figure": name, **values, "low": gap.low, "high": gap.high, "pairs": len(whole)})
    return rows


def _column(pairs: list[ScoredPair], of: str) -> list[float]:
    return _known(margins(pairs, of))[0]


def _length_spearman(pairs: list[ScoredPair], of: str) -> Statistic:
    both = [(place, r) for place, pair in enumerate(pairs) for r in (pair.chosen, pair.rejected)]
    values = [value for _, r in both if (value := _of(r, of)) is not None]
    return spearman_of(values, [r.tokens for _, r in both], [place for place, _ in both])


def _agreement(pairs: list[ScoredPair], of: str) -> Statistic:
    return agreement_of(_column(pairs, "reward"), _column(pairs, of))


def _accuracy(pairs: list[ScoredPair], of: str) -> Statistic:
    return accuracy_of(_column(pairs, of))


_STATISTICS: dict[str, tuple[str, tuple[str, ...], Callable[[list[ScoredPair], str], Statistic]]] = {
    "rewards/accuracy": ("reward", ("reward",), _accuracy),
    "mean_logps/accuracy": ("mean_logps", ("mean_logps",), _accuracy),
    "mean_logps/agreement": ("mean_logps", ("reward", "mean_logps"), _agreement),
    "mean_logps/length_spearman/both": ("mean_logps", ("mean_logps",), _length_spearman),
    "logps/accuracy": ("logps", ("logps",), _accuracy),
    "logps/agreement": ("logps", ("reward", "logps"), _agreement),
    "logps/length_spearman/both": ("logps", ("logps",), _length_spearman),
}
"""Of a figure: the number it is of, all that a pair has to have for it, and the statistic of pairs that have it."""


def _row(pair: ScoredPair, other: ScoredPair | None, has_other: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"id": pair.id, "set": pair.set, "category": pair.category}
    for prefix, of_model in (("", pair), ("against_", other)):
        if prefix and not has_other:
            continue
        for of in ("reward", *LIKELIHOODS):
            row[f"{prefix}{of}_margin"] = None if of_model is None else margins([of_model], of)[0]
    return row


def _costs(found: _Found, costs: Sequence[RunCost]) -> None:
    if not costs:
        return
    found.tables["runs"] = [cost.row() for cost in costs]
    for cost in costs:
        found.leave_out("line of metrics.jsonl that cannot be read", cost.broken)
        if cost.starts > 1:
            found.notes.append(f"{cost.run} was started {cost.starts} times; its seconds are those of the last start")
    if len(costs) < 2:
        return
    first, second = costs
    for name in ("seconds", "pairs_per_second", "peak_memory_bytes"):
        value = ratio(getattr(first, name), getattr(second, name))
        if value is not None:
            found.figures[f"runs/{name}_ratio"] = Figure(value, count=1)
    if first.device != second.device or first.steps != second.steps:
        found.notes.append(
            f"the two runs are not alike: {first.steps} steps on {first.device or 'an unknown device'}, {second.steps}"
            f" on {second.device or 'an unknown device'}; their ratios say nothing about the methods"
        )
