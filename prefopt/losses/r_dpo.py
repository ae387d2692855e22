"""Length-regularised DPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["RDPO"]


@dataclass(frozen=True)
class RDPO:
    """DPO with a penalty on length (R-DPO, Park et al. 2024, arXiv 2403.19159).

        loss = -log sigmoid( beta * [ (logp_w - ref_w) - (logp_l - ref_l) ] + alpha * (|y_w| - |y_l|) )

    logp: sums over response tokens, EOS included; |y|: their number. Mean over pairs. At policy = reference and equal
    lengths the loss is ln 2. A longer chosen response needs less log-ratio, so that length itself is not learned.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as for DPO.
    alpha: penalty, reward per token; 0.001 to 0.1, above 0. Default 0.01, our choice: no code by the authors was
        found. SimPO's baselines searched 0.05 to 1, according to table 3 of the RePO paper.

    Rewards (for the log): beta * (logp - ref), without the length term.
    Deviations: none. The sign follows from maximising r - alpha |y| - beta KL, and sail-sg/oat has it; some notes have
    minus.
    """

    beta: float = 0.1
    alpha: float = 0.01
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, not {self.alpha}; at 0 it is loss=dpo")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        chosen_length, rejected_length = responses.paired(responses.lengths)
        penalty = self.alpha * (chosen_length - rejected_length).to(chosen.dtype)
        values = -logsigmoid(self.beta * (chosen - rejected) + penalty)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("r_dpo", values, Unit.PAIR),), rewards)
