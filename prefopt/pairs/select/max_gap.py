"""One pair a prompt, where the gap in score is wide enough."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.pairs.comparable import better_pairs, scores_of, widest
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["MaxGap"]


@dataclass(frozen=True)
class MaxGap:
    """The pair of the widest gap, where that is `min_gap` or more; prompts without such a gap are left out.

    min_gap: in units of the scores. 0.3 exceeds 0.1 by 0.2, although in floating point it is a little less.
    """

    min_gap: float = 1.0

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __post_init__(self) -> None:
        if not self.min_gap > 0:
            raise ValueError(f"min_gap must be above 0, not {self.min_gap}: select=best_vs_worst takes any gap")

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        pairs, why = better_pairs(example.candidates)
        if not pairs:
            return Selected(reason=why)
        scores = scores_of(example.candidates)
        pair = widest(pairs, scores)
        gap = scores[pair[0]] - scores[pair[1]]
        if gap >= self.min_gap or math.isclose(gap, self.min_gap):
            return Selected((pair,))
        return Selected(reason="the widest gap is below min_gap")
