"""Identity preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit

__all__ = ["IPO"]


@dataclass(frozen=True)
class IPO:
    """Squared loss that draws the log-ratio to a fixed margin (Azar et al. 2023, arXiv 2310.12036, eq. 17).

        h    = u_w - u_l                     u = (logp - ref) / |y|   normalisation = mean
        loss = (h - 1 / (2 beta))^2          u = logp - ref           normalisation = sum

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is (1 / (2 beta))^2.

    beta: the paper's tau; the target margin is 1 / (2 beta) nats (per token with mean). 0.01 to 1. Default 0.1, as in
        TRL and HALOs. The same beta means very different losses under the two normalisations.
    normalisation: mean (TRL and HALOs; TRL notes that the paper's authors confirmed it; default) or sum (the equation
        as printed, and the first DPO code base).

    Rewards (for the log): beta * (logp - ref), sums under both normalisations, as TRL logs them.
    Deviations: none from TRL; the paper's equation is normalisation=sum.
    """

    beta: float = 0.1
    normalisation: str = "mean"
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if self.normalisation not in ("mean", "sum"):
            raise ValueError(f"normalisation must be mean or sum, not {self.normalisation!r}")

    def __call__(self, responses: Responses) -> LossOutput:
        logratios = responses.logratios
        if self.normalisation == "mean":
            logratios = logratios / responses.lengths
        chosen, rejected = responses.paired(logratios)
        values = (chosen - rejected - 1 / (2 * self.beta)).square()
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("ipo", values, Unit.PAIR),), rewards)
