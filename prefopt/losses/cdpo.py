"""Conservative DPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["CDPO"]


@dataclass(frozen=True)
class CDPO:
    """DPO with smoothed labels (Mitchell 2023, "A note on DPO with noisy preferences", ericmitchell.ai/cdpo.pdf).

        x    = beta * [ (logp_w - ref_w) - (logp_l - ref_l) ]
        loss = -(1 - label_smoothing) * log sigmoid(x) - label_smoothing * log sigmoid(-x)

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is ln 2; it is least
    at x = log((1 - label_smoothing) / label_smoothing) and pulls back beyond.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as for DPO and in HALOs.
    label_smoothing: probability that a label is wrong, above 0 and below 0.5. Default 0.1, our choice: the note names
        none, the DPO code base has 0 (which is `loss=dpo`), HALOs 0.2.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none. TRL 1.x has no such loss; its label_smoothing leaves `sigmoid` unchanged.
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
        values = -(1 - self.label_smoothing) * logsigmoid(x) - self.label_smoothing * logsigmoid(-x)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("cdpo", values, Unit.PAIR),), rewards)
