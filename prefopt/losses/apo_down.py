"""Anchored preference optimisation, down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import sigmoid

__all__ = ["APODown"]


@dataclass(frozen=True)
class APODown:
    """Lowers the chosen response and the rejected one more (APO-down).

    D'Oosterlinck et al. 2024, arXiv 2408.06266.

        u    = beta * (logp - ref)
        loss = sigmoid(u_w) + 1 - sigmoid(u_w - u_l)

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is 1. For data whose
    chosen responses are worse than the model's own. At policy = reference the gradient of the chosen response is 0.

    beta: reward per nat; 0.01 to 0.5. Default 0.1, as in the paper and TRL.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none; 1 - sigmoid(u) is computed as sigmoid(-u), which keeps its digits.
    """

    beta: float = 0.1
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(self.beta * responses.logratios)
        values = sigmoid(chosen) + sigmoid(rejected - chosen)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("apo_down", values, Unit.PAIR),), rewards)
