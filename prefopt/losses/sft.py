"""Supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit

__all__ = ["SFT"]


@dataclass(frozen=True)
class SFT:
    """Cross entropy on the response; on pairs and rankings this is SFT on the chosen or best response.

        loss = -(1/N) sum over response tokens of log p(token | before)

    Source: maximum likelihood; the prompt is not trained on. Needs nothing but a response.

    reduction: what the mean is taken over.
        token_mean: all response tokens of the optimiser step, over all micro-batches and ranks (TRL, transformers).
        sequence_sum: sum over each response, mean over responses (the first DPO code base, f8b8c0f).
        sequence_mean: mean over each response, then over responses (OpenRLHF with token_level_loss=False).

    Rewards (for the log): the log-probability of the response, nats.
    Deviations: none for token_mean. Tools that average per micro-batch give another number with gradient accumulation.
    """

    reduction: str = "token_mean"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.reduction not in ("token_mean", "sequence_sum", "sequence_mean"):
            raise ValueError(f"reduction must be token_mean, sequence_sum or sequence_mean, not {self.reduction!r}")

    def __call__(self, responses: Responses) -> LossOutput:
        if self.reduction == "token_mean":
            nll = Component("nll", -responses.imitated_token_logps, Unit.TOKEN)
        elif self.reduction == "sequence_sum":
            nll = Component("nll", -responses.logps[responses.best], Unit.EXAMPLE)
        else:
            nll = Component("nll", -responses.mean_logps[responses.best], Unit.EXAMPLE)
        return LossOutput((nll,), responses.logps.detach())
