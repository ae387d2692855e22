"""Statistical rejection sampling: pairs of what the optimal policy would have sampled."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.fill import one_of
from prefopt.pairs.comparable import (
    NO_PAIR_MET,
    comparison,
    distinct,
    of_different_texts,
    scores_of,
    taken,
    why_none,
)
from prefopt.pairs.ranking import first_round, tournament
from prefopt.pairs.rejection import rejection_sample
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["RSO"]


@dataclass(frozen=True)
class RSO:
    """Candidates of the SFT policy are accepted as if drawn from the policy that is optimal for their scores, and those
    that are accepted are ranked (Liu et al. 2023, arXiv 2309.06657, Algorithm 1 and section 5.2).

    num_samples: accepted of each prompt, no fewer and no more; a prompt that has fewer candidates is left out.
    beta: of the optimal policy, in units of the scores: small takes the best (0: only them), large takes any.
    duplicates: keep takes every candidate for itself, as the algorithm has it; drop takes each text once. (The paper's
        listing keys a dictionary by the text, so that duplicates vanish from it.) Equal texts never make a pair.
    ranking: first_round (num_samples / 2 pairs) or tournament (num_samples - 1), in an order drawn for the prompt.
        Where a pairwise judge spoke, it decides, else the scores do.

    The score should be the paper's reward: the logit of P(beats a baseline) of a pairwise ranker (eq. 7), or that of a
    reward model.
    """

    num_samples: int = 8
    beta: float = 0.5
    duplicates: str = one_of("keep", "drop")
    ranking: str = one_of("first_round", "tournament")

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["wins"]] = "wins"

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ValueError(f"num_samples must be 2 or more to make a pair, not {self.num_samples}")
        if self.beta < 0:
            raise ValueError(f"beta must be 0 or more, not {self.beta}")

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        candidates = example.candidates
        compare = of_different_texts(comparison(candidates), candidates)
        if why := why_none(candidates, compare):
            return Selected(reason=why)
        places = distinct(candidates) if self.duplicates == "drop" else list(range(len(candidates)))
        if len(places) < self.num_samples:
            return Selected(reason="fewer candidates than num_samples")
        scores = scores_of(candidates)
        accepted = rejection_sample([scores[p] for p in places], self.num_samples, self.beta, chance.random)
        order = [places[a] for a in accepted.places]
        chance.shuffle(order)
        pairs = first_round(order, compare) if self.ranking == "first_round" else tournament(order, compare).pairs
        return taken(pairs, NO_PAIR_MET)
