"""Direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["DPO"]


@dataclass(frozen=True)
class DPO:
    """Logistic loss on the difference of log-ratios to a reference (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

        loss = -log sigmoid( beta * [ (logp_w - ref_w) - (logp_l - ref_l) ] )

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is ln 2.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. The authors' code has no default; 0.1 is
        the value of their experiments and of TRL. The SimPO authors' tuned DPO and zephyr-7b use 0.01.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none.
    """

    beta: float = 0.1
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        values = -logsigmoid(self.beta * (chosen - rejected))
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("dpo", values, Unit.PAIR),), rewards)
