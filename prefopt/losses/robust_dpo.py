"""Robust DPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["RobustDPO"]


@dataclass(frozen=True)
class RobustDPO:
    """DPO made unbiased where labels are flipped at random (Chowdhury et al. 2024, arXiv 2403.00409).

        x    = beta * [ (logp_w - ref_w) - (logp_l - ref_l) ]
        e    = label_smoothing
        loss = ( -(1 - e) * log sigmoid(x) + e * log sigmoid(-x) ) / (1 - 2 e)

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is ln 2. Its mean
    over flips with probability e is the DPO loss of the true label; it can be negative and has no lower bound.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as in TRL.
    label_smoothing: probability that a label is flipped, above 0 and below 0.5; near 0.5 the loss grows without bound.
        Default 0.1, our choice: TRL has 0, which is `loss=dpo`.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none.
    """

    beta: float = 0.1
    label_smoothing: float = 0.1
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not 0 < self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in (0, 0.5), not {self.label_smoothing}; at 0 it is loss=dpo")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        x = self.beta * (chosen - rejected)
        flipped = self.label_smoothing
        values = (flipped * logsigmoid(-x) - (1 - flipped) * logsigmoid(x)) / (1 - 2 * flipped)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("robust_dpo", values, Unit.PAIR),), rewards)
