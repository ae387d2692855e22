"""Contrastive preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["CPO"]


@dataclass(frozen=True)
class CPO:
    """Logistic loss on sums of log-probabilities plus imitation, no reference (Xu et al. 2024, arXiv 2401.08417).

        x    = beta * (logp_w - logp_l)
        loss = -(1 - label_smoothing) * log sigmoid(x) - label_smoothing * log sigmoid(-x) + nll_weight * NLL

    logp: sums over response tokens, EOS included. The preference term is a mean over pairs, the NLL of the chosen
    response a mean over its tokens, both over the whole optimiser step. At equal sums the preference term is ln 2.

    beta: reward per nat; 0.01 to 0.5. Default 0.1, as in the authors' code (ALMA-R) and TRL.
    nll_weight: weight of the NLL, TRL's cpo_alpha; 0.1 to 1, 0 leaves it out. Default 1.0: the authors have it fixed
        at 1.
    label_smoothing: probability that a label is wrong, 0 to 0.5. Default 0 (TRL's setting; not in the paper).

    Rewards (for the log): beta * logp.
    Deviations: the authors' and TRL's NLL is a mean per micro-batch, so theirs changes with gradient accumulation.
    """

    beta: float = 0.1
    nll_weight: float = 1.0
    label_smoothing: float = 0.0
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not self.nll_weight >= 0:
            raise ValueError(f"nll_weight must be 0 or more, not {self.nll_weight}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logps)
        x = self.beta * (chosen - rejected)
        values = -(1 - self.label_smoothing) * logsigmoid(x) - self.label_smoothing * logsigmoid(-x)
        rewards = self.beta * responses.logps.detach()
        components = (
            Component("cpo", values, Unit.PAIR),
            Component("nll", -responses.imitated_token_logps, Unit.TOKEN, self.nll_weight),
        )
        return LossOutput(components, rewards)
