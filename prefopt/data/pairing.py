"""Which two responses make a pair: `data.pairs` and `data.min_score_gap`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

from prefopt.records import Example

Pair = tuple[int, int]


class Paired(NamedTuple):
    """pairs: (chosen, rejected) as places.

    num_close: pairs left out because their scores differ by less than the gap. num_identical: those left out because
    both responses are the same text.
    """

    pairs: tuple[Pair, ...] = ()
    num_close: int = 0
    num_identical: int = 0


@dataclass(frozen=True)
class Pairing:
    """How a ranking becomes pairs. Equal scores never make one.

    which: best_vs_worst: the first of the highest and the first of the lowest score. all: every two that differ.
    adjacent: neighbours in the order of the different scores, of each score the first response in the file.
    random: one of all, each as likely as another, by a hash of the row's words: the same on every machine, in every
    epoch and wherever the row stands in its file.
    min_score_gap: chosen's score must exceed rejected's by at least this much. 0.3 exceeds 0.1 by 0.2, although in
    floating point it is a little less.
    """

    which: str = "best_vs_worst"
    min_score_gap: float = 0.0

    def __call__(self, example: Example, scores: Sequence[float]) -> Paired:
        """The pairs of an example. scores: one per candidate, or none at all."""
        wanted = self._wanted(scores)
        apart = [pair for pair in wanted if self._is_apart(scores, pair)]
        texts = [candidate.text for candidate in example.candidates]
        found = [(w, r) for w, r in apart if texts[w] != texts[r]]
        drawn = [found[_draw(example, len(found))]] if self.which == "random" and found else found
        return Paired(tuple(drawn), len(wanted) - len(apart), len(apart) - len(found))

    def _wanted(self, scores: Sequence[float]) -> list[Pair]:
        if self.which == "best_vs_worst":
            highest, lowest = max(scores, default=0.0), min(scores, default=0.0)
            return [(scores.index(highest), scores.index(lowest))] if highest > lowest else []
        if self.which == "adjacent":
            first: dict[float, int] = {}
            for place, score in enumerate(scores):
                first.setdefault(score, place)
            falling = [first[score] for score in sorted(first, reverse=True)]
            return list(pairwise(falling))
        places = range(len(scores))
        return [(w, r) for w, r in product(places, places) if scores[w] > scores[r]]

    def _is_apart(self, scores: Sequence[float], pair: Pair) -> bool:
        gap = scores[pair[0]] - scores[pair[1]]
        return gap >= self.min_score_gap or math.isclose(gap, self.min_score_gap)


def _draw(example: Example, count: int) -> int:
    """A number below `count` that only the example's words decide: not its place, which changes with the file."""
    words = [[m.role, m.content] for m in example.prompt], [c.text for c in example.candidates]
    return int.from_bytes(hashlib.sha256(json.dumps(words).encode()).digest(), "big") % count
