"""Score by a ranker that reads one response and says Good or Bad."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.records import Example

__all__ = ["GoodBad"]


@dataclass(frozen=True)
class GoodBad:
    """The probability that the ranker at `reward` says Good after a response (SLiC-HF, Zhao et al. 2023).

        score = p(Good | prompt, response)                          renormalise = false
        score = p(Good) / (p(Good) + p(Bad))                        renormalise = true

    The ranker: of `prefopt train loss=rank_pointwise`. The response is closed with EOS and followed by the word, as in
    its training; of a word of several tokens p is the product. arXiv 2305.10425.

    renormalise: whether the rest of the vocabulary is left aside. Default false, as the paper is described.
    """

    renormalise: bool = False

    uses: ClassVar[frozenset[str]] = frozenset({"reward"})

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a model that is no language model."""
        from prefopt.pairs.model_checks import check_language_model

        check_language_model(asked.settings.reward, "reward")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that scores. Raises: UserError for a model that is missing or no language model."""
        from prefopt.data.verdicts import BAD, GOOD
        from prefopt.pairs.score_models import named, open_language_model

        path = named(place.settings.reward, "reward", "score=good_bad", "a ranker of loss=rank_pointwise")
        model = open_language_model(place, path, "reward")
        ids = model.encoder.verdicts("verdicts")
        words = [ids[GOOD], ids[BAD]] if self.renormalise else [ids[GOOD]]
        room = max(map(len, words))

        def score(examples: Sequence[Example]) -> list[Judged]:
            tokens = [model.encoder(example, room=room) for example in examples]
            return [
                one.judged([None if found is None else good_probability(*found) for found in logps])
                for one, logps in zip(tokens, model.verdicts(tokens, words), strict=True)
            ]

        return score


def good_probability(good: float, bad: float | None = None) -> float:
    """P(Good) from log-probabilities of the words. bad: renormalises over the two."""
    if bad is None:
        return math.exp(good)
    likelier = max(good, bad)  # which does not underflow: two probabilities of 0 would have no quotient
    return math.exp(good - likelier) / (math.exp(good - likelier) + math.exp(bad - likelier))
