"""A knock-out tournament: one pair fewer than candidates."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.fill import one_of
from prefopt.pairs.comparable import NO_PAIR_MET, comparison, of_different_texts, taken, why_none
from prefopt.pairs.ranking import tournament
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["Tournament"]


@dataclass(frozen=True)
class Tournament:
    """Neighbours meet, the better ones meet again: k - 1 pairs (SLiC-HF, arXiv 2305.10425).

    Where a pairwise judge spoke, it decides (better: P above 0.5), else the scores do. Of a tie, or of equal texts, the
    first advances and there is no pair.

    order: of the first round: drawn for the prompt, or as given.
    """

    order: str = one_of("drawn", "given")

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["wins"]] = "wins"

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        candidates = example.candidates
        compare = of_different_texts(comparison(candidates), candidates)
        if why := why_none(candidates, compare):
            return Selected(reason=why)
        order = list(range(len(candidates)))
        if self.order == "drawn":
            chance.shuffle(order)
        return taken(tournament(order, compare).pairs, NO_PAIR_MET)
