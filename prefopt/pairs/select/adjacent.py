"""Neighbours in the order of the scores."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from prefopt.pairs.comparable import better_pairs, scores_of, taken
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["Adjacent"]


@dataclass(frozen=True)
class Adjacent:
    """Of each score that occurs its first candidate; each of these against the next lower one."""

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        pairs, why = better_pairs(example.candidates)
        scores = scores_of(example.candidates)
        first: dict[float, int] = {}
        for place in sorted({place for pair in pairs for place in pair}):
            first.setdefault(scores[place], place)
        return taken(pairwise(first[score] for score in sorted(first, reverse=True)), why)
