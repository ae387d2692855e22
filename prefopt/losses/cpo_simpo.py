"""SimPO with imitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["CPOSimPO"]


@dataclass(frozen=True)
class CPOSimPO:
    """SimPO plus the NLL of the chosen response (the code base fe1ixxu/CPO_SIMPO, 2024; no paper).

        x    = beta * (logp_w / |y_w| - logp_l / |y_l| - gamma_beta_ratio)
        loss = -log sigmoid(x) + nll_weight * NLL

    |y|: response tokens, EOS included. The preference term is a mean over pairs, the NLL a mean over the tokens of
    chosen responses, both over the whole optimiser step.

    beta: reward per nat per token; 2 to 10. Default 10.0, as in the authors' code.
    gamma_beta_ratio: gamma / beta, the margin in nats per token; 0 to 1. Default 0.54: the authors' gamma is 5.4.
    nll_weight: weight of the NLL, the authors' cpo_alpha; 0.01 to 1, above 0. Default 0.05, as in the authors' code.

    Rewards (for the log): beta * logp / |y|.
    Deviations: the margin is a ratio to beta as in `loss=simpo`, theirs is gamma itself. Their NLL is a mean per
    micro-batch.
    """

    beta: float = 10.0
    gamma_beta_ratio: float = 0.54
    nll_weight: float = 0.05
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not self.nll_weight > 0:
            raise ValueError(f"nll_weight must be above 0, not {self.nll_weight}; at 0 it is loss=simpo")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.mean_logps)
        values = -logsigmoid(self.beta * (chosen - rejected - self.gamma_beta_ratio))
        rewards = self.beta * responses.mean_logps.detach()
        components = (
            Component("cpo_simpo", values, Unit.PAIR),
            Component("nll", -responses.imitated_token_logps, Unit.TOKEN, self.nll_weight),
        )
        return LossOutput(components, rewards)
