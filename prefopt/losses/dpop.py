"""DPO-Positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["DPOP"]


@dataclass(frozen=True)
class DPOP:
    """DPO with a penalty where the chosen response falls below the reference (DPOP, the loss of the Smaug models).

    Pal et al. 2024, arXiv 2402.13228.

        u    = logp - ref
        loss = -log sigmoid( beta * [ u_w - u_l - lam * max(0, -u_w) ] )

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is ln 2. Below the
    reference the chosen response weighs 1 + lam times as much as the rejected one; for pairs that differ in a few
    tokens, where DPO lowers both.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 1. Default 0.3, as in the paper.
    lam: weight of the penalty; 1 to 500, above 0. Default 50, as in the paper, which found 5 to 500 much alike.

    Rewards (for the log): beta * (logp - ref), without the penalty.
    Deviations: none. No code by the authors was found.
    """

    beta: float = 0.3
    lam: float = 50.0
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not self.lam > 0:
            raise ValueError(f"lam must be above 0, not {self.lam}; at 0 it is loss=dpo")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        values = -logsigmoid(self.beta * (chosen - rejected - self.lam * (-chosen).clamp(min=0)))
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("dpop", values, Unit.PAIR),), rewards)
