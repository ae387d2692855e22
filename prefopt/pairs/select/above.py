"""Candidates that are good enough, to be imitated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.pairs.comparable import distinct, scores_of
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["Above"]


@dataclass(frozen=True)
class Above:
    """Every text whose score is above the threshold: the self-curation of instruction back-translation (Li et al. 2023,
    arXiv 2308.06259), with the scores of a judge from 1 to 5.

    threshold: in units of the scores; what has exactly that is not taken.
    """

    threshold: float = 4.5

    writes: ClassVar[Literal["sft"]] = "sft"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        scores = scores_of(example.candidates)
        kept = tuple(place for place in distinct(example.candidates) if scores[place] > self.threshold)
        return Selected(kept=kept, reason="" if kept else "no score is above the threshold")
