"""Every candidate with its score, best first."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.pairs.comparable import distinct, scores_of, why_none
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["KeepAll"]


@dataclass(frozen=True)
class KeepAll:
    """A ranking of all texts by their scores, for losses over lists (RRHF, Yuan et al. 2023, arXiv 2304.05302)."""

    writes: ClassVar[Literal["ranked"]] = "ranked"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        if why := why_none(example.candidates):
            return Selected(reason=why)
        scores = scores_of(example.candidates)
        return Selected(kept=tuple(sorted(distinct(example.candidates), key=lambda place: -scores[place])))
