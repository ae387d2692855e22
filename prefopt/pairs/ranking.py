"""Pairs out of candidates that are compared two at a time: the sample-and-rank of SLiC-HF (arXiv 2305.10425).

Candidates are places, 0-based. A pair is (chosen, rejected). Nothing here knows texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

Pair = tuple[int, int]

Compare = Callable[[int, int], float]
"""By how much the first is better than the second: below 0 where it is worse, 0 for a tie."""


class Played(NamedTuple):
    """pairs: in the order of play. best: who was never beaten."""

    pairs: tuple[Pair, ...]
    best: int


def by_scores(scores: Sequence[float]) -> Compare:
    """The higher score is better; equal ones tie."""
    return lambda i, j: scores[i] - scores[j]


def by_wins(wins: Sequence[Sequence[float]]) -> Compare:
    """i is better than j where P(i beats j) is above one half, and ties at one half. wins: [k][k]."""
    return lambda i, j: wins[i][j] - 0.5


def first_round(order: Sequence[int], compare: Compare) -> tuple[Pair, ...]:
    """Neighbours in the order meet once: at most floor(m / 2) pairs. Ties make none; an odd last one meets nobody."""
    pairs, _ = _round(order, compare)
    return tuple(pairs)


def tournament(order: Sequence[int], compare: Compare) -> Played:
    """Rounds of neighbours until one is left: at most m - 1 pairs. The better advances, of a tie the first, which
    makes no pair; an odd last one advances by default.
    """
    pairs: list[Pair] = []
    playing = list(order)
    while len(playing) > 1:
        played, playing = _round(playing, compare)
        pairs += played
    return Played(tuple(pairs), playing[0])


def _round(order: Sequence[int], compare: Compare) -> tuple[list[Pair], list[int]]:
    """The pairs of one round, and who advances."""
    pairs: list[Pair] = []
    advancing: list[int] = []
    for first, second in zip_longest(order[::2], order[1::2]):
        if second is None:
            advancing.append(first)
            continue
        difference = compare(first, second)
        advancing.append(first if difference >= 0 else second)
        if difference:
            pairs.append((first, second) if difference > 0 else (second, first))
    return pairs, advancing


def oriented(drawn: Iterable[Pair], compare: Compare) -> tuple[Pair, ...]:
    """Drawn index pairs, the better one first; ties make none."""
    return tuple((i, j) if compare(i, j) > 0 else (j, i) for i, j in drawn if compare(i, j))


def reward_from_baseline(probability: float) -> float:
    """RSO's reward (arXiv 2309.06657, eq. 7), nats: the logit of P(response beats the baseline), strictly in (0, 1)."""
    return math.log(probability) - math.log1p(-probability)
