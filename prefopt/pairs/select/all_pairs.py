"""Every two candidates whose scores differ."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.pairs.comparable import better_pairs, taken
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["AllPairs"]


@dataclass(frozen=True)
class AllPairs:
    """Every two texts of different score are a pair: up to k (k - 1) / 2 of k candidates."""

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        pairs, why = better_pairs(example.candidates)
        return taken(pairs, why)
