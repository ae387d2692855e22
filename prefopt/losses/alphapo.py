"""SimPO with a shaped reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import expm1_or_line, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AlphaPO"]


@dataclass(frozen=True)
class AlphaPO:
    """SimPO with a reward bent by alpha (Gupta et al. 2025, arXiv 2501.03884).

        A    = logp / |y|                     |y|: response tokens, EOS included
        r    = (1 - exp(-alpha * A)) / alpha  alpha = 0: r = A, which is SimPO
        loss = -log sigmoid( beta * (r_w - r_l - gamma_beta_ratio) )

    Mean over pairs. At equal A and without a margin the loss is ln 2.

    beta: reward per unit of r; 2 to 10. Default 2.5, the published Mistral-Instruct run (TRL's paper index).
    gamma_beta_ratio: gamma / beta, the margin in units of r; 0 to 1. Default 0.04: gamma is 0.1 in the
        same run.
    alpha: shape of the reward, per nat per token; -0.5 to 0.5. Above 0 unlikely responses weigh more. Default 0.25,
        the same run; TRL has 0.

    Rewards (for the log): beta * r.
    Deviations: r is computed by expm1, which keeps its digits; no code by the authors was found, TRL's is NaN in
    float32 below A = -104. Where -alpha * A is above 40, r goes on as a straight line, so that value and gradient stay
    finite. The margin is a ratio to beta as in `loss=simpo`, in TRL it is gamma itself.
    """

    beta: float = 2.5
    gamma_beta_ratio: float = 0.04
    alpha: float = 0.25
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    def __call__(self, responses: Responses) -> LossOutput:
        rewards = self._reward(responses.mean_logps)
        chosen, rejected = responses.paired(rewards)
        values = -logsigmoid(self.beta * (chosen - rejected - self.gamma_beta_ratio))
        return LossOutput((Component("alphapo", values, Unit.PAIR),), self.beta * rewards.detach())

    def _reward(self, mean_logps: Tensor) -> Tensor:
        """r of A."""
        return -expm1_or_line(-self.alpha * mean_logps) / self.alpha if self.alpha else mean_logps
