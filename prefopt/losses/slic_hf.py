"""Sequence likelihood calibration from human feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit

__all__ = ["SLiCHF"]


@dataclass(frozen=True)
class SLiCHF:
    """Hinge on sums of log-probabilities plus imitation, no reference (SLiC-HF, Zhao et al. 2023, arXiv 2305.10425).

        loss = max(0, delta - logp_w + logp_l) - lam * logp_w

    logp: sums over response tokens, EOS included, in both terms. Mean over pairs. At equal sums the first term is
    delta.

    delta: margin, nats; 1 to 10. Default 1.0, as in the paper and HALOs.
    lam: weight of the imitation term; 0 to 1. Default 0.1, as in HALOs; the paper's was not found.

    Rewards (for the log): logp.
    Deviations: the paper imitates the SFT target or the best candidate; here it is the chosen response, as in HALOs.
    The imitation term is a sum over tokens as in the equation. HALOs' current code mixes a hinge per sequence with
    log-probabilities per token; this is their first version.
    """

    delta: float = 1.0
    lam: float = 0.1
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise ValueError(f"delta must be above 0, not {self.delta}")
        if not self.lam >= 0:
            raise ValueError(f"lam must be 0 or more, not {self.lam}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logps)
        calibration = Component("calibration", (self.delta - chosen + rejected).clamp(min=0), Unit.PAIR)
        imitation = Component("imitation", -chosen, Unit.PAIR, self.lam)
        return LossOutput((calibration, imitation), responses.logps.detach())
