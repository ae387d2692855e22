"""Pairs drawn at random, the higher score first."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal

from prefopt.pairs.comparable import NO_PAIR_MET, of_different_texts, scores_of, taken, why_none
from prefopt.pairs.ranking import by_scores, oriented
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["Pointwise"]


@dataclass(frozen=True)
class Pointwise:
    """`num_pairs` of all pairs of candidates are drawn, none twice, and the scores say which one is better (SLiC-HF's
    pointwise ranker, arXiv 2305.10425). Ties and equal texts are drawn too and make no pair.

    num_pairs: drawn for each prompt; all where there are no more.
    """

    num_pairs: int = 8

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __post_init__(self) -> None:
        if self.num_pairs < 1:
            raise ValueError(f"num_pairs must be 1 or more, not {self.num_pairs}")

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        candidates = example.candidates
        if why := why_none(candidates):
            return Selected(reason=why)
        every = list(combinations(range(len(candidates)), 2))
        drawn = chance.sample(every, min(self.num_pairs, len(every)))
        compare = of_different_texts(by_scores(scores_of(candidates)), candidates)
        return taken(oriented(drawn, compare), NO_PAIR_MET)
