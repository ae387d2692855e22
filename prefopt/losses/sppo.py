"""Self-play preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefopt.batch import Component, LossOutput, Responses, Unit

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SPPO"]


@dataclass(frozen=True)
class SPPO:
    """Squared loss that draws each log-ratio to what its probability of winning asks for (SPPO).

    Wu et al. 2024, arXiv 2405.00675.

        u    = logp - ref
        loss = (u_w - 1 / (2 beta))^2 + (u_l + 1 / (2 beta))^2                            variant = hard
        loss = 1/2 * [ (u_w - (p_w - 1/2) / beta)^2 + (u_l - (p_l - 1/2) / beta)^2 ]      variant = soft

    logp: sums over response tokens, EOS included; p: probability that the response beats one of the policy's own. Mean
    over pairs. At policy = reference the loss is 1 / (2 beta^2) with hard. Each side is drawn to a value of its own:
    lowering the rejected response does not make up for a chosen one that falls.

    variant: hard (wins taken for certain, which any pairs allow, default; TRL's loss_type=sppo_hard) or soft (the
        authors': the scores of the data are p). With p_w = 1 and p_l = 0 soft is half of hard.
    beta: the authors' 1 / eta, reward per nat; the targets are 1 / (2 beta) nats apart from 0. 0.001 to 0.1. Default
        0.001, as in the authors' pipeline.sh; their config_full.yaml has 0.01, TRL 0.1.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none. The factor 1/2 of soft is the authors', its absence in hard TRL's; a learning rate for one is half
    or twice as large for the other.
    """

    variant: str = "hard"
    beta: float = 0.001

    def __post_init__(self) -> None:
        if self.variant not in ("hard", "soft"):
            raise ValueError(f"variant must be hard or soft, not {self.variant!r}")
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    @property
    def needs(self) -> frozenset[str]:
        pairs = {"pairs", "reference"}
        return frozenset(pairs | {"probabilities"} if self.variant == "soft" else pairs)

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        target_chosen, target_rejected = self._targets(responses)
        values = (chosen - target_chosen).square() + (rejected - target_rejected).square()
        if self.variant == "soft":
            values = values / 2
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("sppo", values, Unit.PAIR),), rewards)

    def _targets(self, responses: Responses) -> tuple[Tensor | float, Tensor | float]:
        """Log-ratios that the chosen and the rejected responses are drawn to, nats."""
        if self.variant == "hard":
            return 0.5 / self.beta, -0.5 / self.beta
        assert responses.scores is not None, "needs has probabilities"
        return responses.paired((responses.scores - 0.5) / self.beta)
