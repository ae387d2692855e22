"""Pareto fronts and hypervolumes of every two and three of a few objectives, for the page's drop-downs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from prefopt.report.metric_names import spoken
from prefopt.report.pareto import MAXIMIZE, MINIMIZE, front, hypervolume, worst

OBJECTIVES = 6
"""How many metrics the drop-downs offer at most: 15 pairs and 20 triples."""
MANY_RUNS = 300
"""Above it the drop-downs offer three, since an exact front costs the square of the runs."""


def fronts(
    metrics: Sequence[Mapping[str, float]], ways: Mapping[str, int], objectives: Sequence[str]
) -> dict[str, Any]:
    """{"objectives": names, "first": "0,2", "found": {"0,2": {"points", "front", "hypervolume", "reference"}}}.

    Empty with fewer than two. first: what is drawn first, the objectives asked for or the two that disagree most.

    metrics: of each run. ways: every metric, in the order in which they are offered, with 1 where more is better, -1
    where less is, 0 where neither is; these are not offered. objectives: those that come first. points: places of the
    runs that have all finite; at least two. reference: the worst value of each, the corner of the hypervolume.
    """
    wished = [name for name in objectives if ways.get(name)]
    limit = max(len(wished), OBJECTIVES if len(metrics) <= MANY_RUNS else 3)
    others = [name for name in ways if name not in wished and ways[name] and _varies(metrics, name)]
    # One of each kind before a second set's: accuracy on two sets is seldom a trade-off.
    seen: dict[str, list[str]] = {}
    for name in others:
        seen.setdefault(spoken(name)[0], []).append(name)
    others = [name for same in seen.values() for name in same[:1]] + [n for same in seen.values() for n in same[1:]]
    offered = [*wished, *others][:limit]
    found: dict[str, Any] = {}
    for count in (2, 3):
        for chosen in combinations(range(len(offered)), count):
            front_of = _front(metrics, {offered[place]: ways[offered[place]] for place in chosen})
            if front_of:
                found[",".join(map(str, chosen))] = front_of
    if not found:
        return {}
    asked = ",".join(map(str, range(min(len(wished), 3))))
    pairs = [pair for pair in found if pair.count(",") == 1]
    longest = max(pairs, key=lambda pair: _corners(metrics, offered, pair, found[pair]["front"]))
    return {"objectives": offered, "first": asked if asked in found else longest, "found": found}


def _corners(metrics: Sequence[Mapping[str, float]], offered: Sequence[str], pair: str, front_of: list[int]) -> int:
    """How many different points a front has: runs that are equal in both objectives trade nothing off."""
    names = [offered[int(place)] for place in pair.split(",")]
    return len({tuple(metrics[run][name] for name in names) for run in front_of})


def _varies(metrics: Sequence[Mapping[str, float]], name: str) -> bool:
    return len({run[name] for run in metrics if name in run}) > 1


def _front(metrics: Sequence[Mapping[str, float]], ways: Mapping[str, int]) -> dict[str, Any] | None:
    have = [place for place, run in enumerate(metrics) if all(math.isfinite(run.get(n, math.nan)) for n in ways)]
    if len(have) < 2:
        return None
    points = [tuple(metrics[place][name] for name in ways) for place in have]
    directions = [MINIMIZE if way < 0 else MAXIMIZE for way in ways.values()]
    reference = worst(points, directions)
    return {
        "points": have,
        "front": [have[place] for place in front(points, directions)],
        "hypervolume": hypervolume(points, directions, reference),
        "reference": reference,
    }
