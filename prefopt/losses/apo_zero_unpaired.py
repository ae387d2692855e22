"""Anchored preference optimisation, zero, for single responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import sigmoid

__all__ = ["APOZeroUnpaired"]


@dataclass(frozen=True)
class APOZeroUnpaired:
    """APO-zero for responses marked desirable or not: KTO without its reference point.

    D'Oosterlinck et al. 2024, arXiv 2408.06266, for single responses as in TRL's KTO trainer.

        u    = beta * (logp - ref)
        loss = desirable_weight   * (1 - sigmoid(u))        desirable
        loss = undesirable_weight * sigmoid(u)              undesirable

    logp: sums over response tokens, EOS included. Mean over responses. At policy = reference, with weights 1, the loss
    is 0.5. On the two responses of each pair it is half of `loss=apo_zero`.

    beta: reward per nat; 0.01 to 0.5. Default 0.1, as in TRL.
    desirable_weight, undesirable_weight: above 0. Default 1, as in TRL; for data that are out of balance.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none; 1 - sigmoid(u) is computed as sigmoid(-u), which keeps its digits.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "reference"})

    def __post_init__(self) -> None:
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")

    def __call__(self, responses: Responses) -> LossOutput:
        import torch

        assert responses.labels is not None, "needs has labels"
        u = self.beta * responses.logratios
        values = torch.where(
            responses.labels, self.desirable_weight * sigmoid(-u), self.undesirable_weight * sigmoid(u)
        )
        return LossOutput((Component("apo_zero_unpaired", values, Unit.RESPONSE),), u.detach())
