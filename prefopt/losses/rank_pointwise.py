"""A ranker that reads one response and says Good or Bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import log1mexp

__all__ = ["RankPointwise"]


@dataclass(frozen=True)
class RankPointwise:
    """Teaches the model to say Good or Bad after a response (SLiC-HF's pointwise ranker).

    Zhao et al. 2023, arXiv 2305.10425.

        loss = -log p( Good | prompt, response )        desirable
        loss = -log p( Bad  | prompt, response )        undesirable

    Cross entropy over the whole vocabulary on the verdict alone; prompt and response are read. Mean over responses. A
    response is scored by p(Good) afterwards.

    There are no settings.

    Rewards (for the log): the log-odds of the right verdict, log p - log(1 - p). They do not rank a chosen response
        above its rejected one (that takes p(Good) of both, and of the rejected one only p(Bad) is computed), so no
        accuracy over pairs is logged.
    Deviations: no code of the authors was found. A decoder-only model predicts the verdict after the response; theirs
        is an encoder-decoder (T5).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "verdicts"})

    def __call__(self, responses: Responses) -> LossOutput:
        right = responses.logps.detach()
        component = Component("rank_pointwise", -responses.logps, Unit.RESPONSE)
        return LossOutput((component,), right - log1mexp(right))
