"""One pair a prompt: the best candidate and one of the others."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.pairs.comparable import better_pairs, scores_of
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["BestVsRandom"]


@dataclass(frozen=True)
class BestVsRandom:
    """The highest score against a candidate drawn from all texts of lower score, each as likely as another.

    UltraFeedback's four answers became the pairs of Zephyr this way (Tunstall et al. 2023, arXiv 2310.16944).
    """

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        pairs, why = better_pairs(example.candidates)
        if not pairs:
            return Selected(reason=why)
        scores = scores_of(example.candidates)
        best = max((chosen for chosen, _ in pairs), key=lambda place: (scores[place], -place))
        return Selected((chance.choice([pair for pair in pairs if pair[0] == best]),))
