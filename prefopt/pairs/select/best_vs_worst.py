"""One pair a prompt: the best and the worst candidate."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.pairs.comparable import better_pairs, scores_of, widest
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["BestVsWorst"]


@dataclass(frozen=True)
class BestVsWorst:
    """The highest score against the lowest, of each the first candidate: the pair of the widest gap.

    Where both are the same text, which a judge that draws can cause, the widest gap between different texts.
    """

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        pairs, why = better_pairs(example.candidates)
        return Selected((widest(pairs, scores_of(example.candidates)),)) if pairs else Selected(reason=why)
