"""Discovered preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid, sigmoid

__all__ = ["DiscoPOP"]


@dataclass(frozen=True)
class DiscoPOP:
    """Blend of a logistic and an exponential loss, found by a language model (DiscoPOP; log-ratio modulated loss).

    Lu et al. 2024, arXiv 2406.08414.

        r    = beta * [ (logp_w - ref_w) - (logp_l - ref_l) ]
        m    = sigmoid(r / tau)
        loss = (1 - m) * -log sigmoid(r) + m * exp(-r)

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is (ln 2 + 1) / 2.
    It is logistic for pairs in the wrong order, exponential for the others, and not convex: with tau below 0.1 it rises
    with r around policy = reference, so that the first steps may lower the chosen response.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.05, as in the paper.
    tau: width of the passage between the two losses, in units of r; above 0, at most 1 (beyond it m * exp(-r) grows
        without bound for pairs in the wrong order). Default 0.05, which the authors' code has fixed.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none; m * exp(-r) is computed as exp(log m - r), which stays finite where exp(-r) overflows.
    """

    beta: float = 0.05
    tau: float = 0.05
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not 0 < self.tau <= 1:
            raise ValueError(f"tau must be in (0, 1], not {self.tau}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        r = self.beta * (chosen - rejected)
        logistic = sigmoid(-r / self.tau) * -logsigmoid(r)
        exponential = (logsigmoid(r / self.tau) - r).exp()
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("discopop", logistic + exponential, Unit.PAIR),), rewards)
