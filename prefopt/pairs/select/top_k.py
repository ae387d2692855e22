"""The best candidates, to be imitated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.pairs.comparable import EQUAL_SCORES, distinct, scores_of
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["TopK"]


@dataclass(frozen=True)
class TopK:
    """The k texts of the highest scores; with 1, best of n. A prompt with fewer gives what it has.

    k: responses of each prompt. Of equal scores the first candidates are taken; where all are equal, and there are more
    than k, the scores choose nothing and the prompt is left out.
    """

    k: int = 1

    writes: ClassVar[Literal["sft"]] = "sft"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be 1 or more, not {self.k}")

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        scores, places = scores_of(example.candidates), distinct(example.candidates)
        if len(places) > self.k and len({scores[place] for place in places}) == 1:
            return Selected(reason=EQUAL_SCORES)
        return Selected(kept=tuple(sorted(places, key=lambda place: -scores[place])[: self.k]))
