"""A ranker that reads one response and says Good or Bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import log1mexp

if TYPE_CHECKING:
    from torch import Tensor

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

    Rewards (for the log): the log-odds of Good, log p(Good) - log(1 - p(Good)) for a desirable response and
        log(1 - p(Bad)) - log p(Bad) for an undesirable one. The second is exact where the two words share all of the
        probability, which a few steps of training see to.
    Deviations: no code of the authors was found. A decoder-only model predicts the verdict after the response; theirs
        is an encoder-decoder (T5).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "verdicts"})

    def __call__(self, responses: Responses) -> LossOutput:
        component = Component("rank_pointwise", -responses.logps, Unit.RESPONSE)
        return LossOutput((component,), self._log_odds_of_good(responses))

    @staticmethod
    def _log_odds_of_good(responses: Responses) -> Tensor:
        """[R]"""
        import torch

        assert responses.labels is not None, "needs has labels"
        verdict = responses.logps.detach()
        of_verdict = verdict - log1mexp(verdict)
        return torch.where(responses.labels, of_verdict, -of_verdict)
