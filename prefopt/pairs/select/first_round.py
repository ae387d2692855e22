"""The first round of a tournament: half as many pairs as candidates."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.fill import one_of
from prefopt.pairs.comparable import NO_PAIR_MET, comparison, of_different_texts, taken, why_none
from prefopt.pairs.ranking import first_round
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["FirstRound"]


@dataclass(frozen=True)
class FirstRound:
    """Each candidate meets one other, once: floor(k / 2) pairs (RSO, arXiv 2309.06657, section 5.2).

    Where a pairwise judge spoke, it decides (better: P above 0.5), else the scores do. Who ties, or has the same text,
    makes no pair.

    order: who meets whom: neighbours in an order drawn for the prompt, or in the order given.
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
        return taken(first_round(order, compare), NO_PAIR_MET)
