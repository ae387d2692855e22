"""Sequence likelihood calibration from human feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefopt.batch import Component, LossOutput, Responses, Unit

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SLiCHF"]


@dataclass(frozen=True)
class SLiCHF:
    """Hinge on sums of log-probabilities plus imitation, no reference (SLiC-HF, Zhao et al. 2023, arXiv 2305.10425).

        loss = max(0, delta - logp_w + logp_l) - lam * logp_t

    t: the response that is imitated. logp: sums over response tokens, EOS included, in both terms. Mean over pairs.
    At equal sums the first term is delta.

    delta: margin, nats; 1 to 10. Default 1.0, as in the paper and HALOs.
    lam: weight of the imitation term; 0 to 1. Default 0.1, as in HALOs; the paper's was not found.
    target: which response is imitated, once for each pair: chosen (of the pair, as in HALOs, default), best (of the
        prompt's responses) or y_ref (the column of that name: the target of supervised fine-tuning). The paper has the
        last two.

    Rewards (for the log): logp.
    Deviations: the default target is that of HALOs, not of the paper, because it asks for nothing but pairs. The
    imitation term is a sum over tokens as in the equation. HALOs' current code mixes a hinge per sequence with
    log-probabilities per token; this is their first version.
    """

    delta: float = 1.0
    lam: float = 0.1
    target: str = "chosen"

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise ValueError(f"delta must be above 0, not {self.delta}")
        if not self.lam >= 0:
            raise ValueError(f"lam must be 0 or more, not {self.lam}")
        if self.target not in ("chosen", "best", "y_ref"):
            raise ValueError(f"target must be chosen, best or y_ref, not {self.target!r}")
        if not self.lam and self.target != "chosen":
            raise ValueError("target has no effect with lam=0; leave it at chosen")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pairs"} | {"chosen": set(), "best": {"best"}, "y_ref": {"targets"}}[self.target])

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logps)
        calibration = Component("calibration", (self.delta - chosen + rejected).clamp(min=0), Unit.PAIR)
        imitation = Component("imitation", -responses.logps[self._imitated(responses)], Unit.PAIR, self.lam)
        return LossOutput((calibration, imitation), responses.logps.detach())

    def _imitated(self, responses: Responses) -> Tensor:
        """[P] the row that each pair imitates."""
        chosen = responses.pairs[:, 0]
        if self.target == "chosen":
            return chosen
        if self.target == "best":
            return responses.best[responses.example[chosen]]
        assert responses.targets is not None, "needs has targets"
        return responses.targets[responses.example[chosen]]
