"""A ranker that reads two responses and says which one is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import log1mexp

__all__ = ["RankPairwise"]


@dataclass(frozen=True)
class RankPairwise:
    """Teaches the model to say A or B after two responses, whichever is better (SLiC-HF's pairwise ranker).

    Zhao et al. 2023, arXiv 2305.10425; Liu et al. 2023 (RSO), arXiv 2309.06657.

        loss = -log p( A | prompt, A: chosen, B: rejected )        one row of a pair
        loss = -log p( B | prompt, A: rejected, B: chosen )        the other

    Cross entropy over the whole vocabulary on the verdict alone; the rest is read. Each pair is shown in both orders,
    so that a taste for the first place earns nothing. Mean over rows.

    There are no settings.

    Rewards (for the log): the log-odds of the right verdict, log p - log(1 - p).
    Deviations: no code of the authors was found; whether they show both orders is not known. A decoder-only model
        predicts the verdict after the responses; theirs is an encoder-decoder (T5).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "comparisons"})

    def __call__(self, responses: Responses) -> LossOutput:
        right = responses.logps.detach()
        component = Component("rank_pairwise", -responses.logps, Unit.RESPONSE)
        return LossOutput((component,), right - log1mexp(right))
