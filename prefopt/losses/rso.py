"""The losses of statistical rejection sampling optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RSO"]


@dataclass(frozen=True)
class RSO:
    """Logistic or hinge loss on pairs that rejection sampling drew (RSO, Liu et al. 2023, arXiv 2309.06657).

        h    = (logp_w - ref_w) - (logp_l - ref_l)
        loss = -log sigmoid( gamma * h )                            form = sigmoid_norm
        loss = max(0, 1 - gamma * h)                                form = hinge_norm
        loss = max(0, 1 - gamma * (logp_w - logp_l))                form = hinge

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is ln 2 with
    sigmoid_norm, 1 with hinge_norm; at equal sums it is 1 with hinge, which has no reference.

    form: sigmoid_norm (the paper's best, default), hinge_norm, or hinge, the loss of SLiC. sigmoid_norm is
        `loss=dpo` with gamma for beta.
    gamma: reward per nat; 0.01 to 0.5; the hinges ask for a margin of 1 / gamma nats. Default 0.05, as in the paper.
        It is not the beta of the rejection sampling, which the paper has at 0.5.

    Rewards (for the log): gamma * (logp - ref); gamma * logp with hinge.
    Deviations: none. TRL's loss_type=sigmoid_norm is another thing: `loss=dpo_length_normalized`. SLiC's margin delta
    is 1 / gamma; `loss=slic_hf` has it, and a term that imitates.
    """

    form: str = "sigmoid_norm"
    gamma: float = 0.05

    def __post_init__(self) -> None:
        if self.form not in ("sigmoid_norm", "hinge_norm", "hinge"):
            raise ValueError(f"form must be sigmoid_norm, hinge_norm or hinge, not {self.form!r}")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be above 0, not {self.gamma}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pairs"} if self.form == "hinge" else {"pairs", "reference"})

    def __call__(self, responses: Responses) -> LossOutput:
        rewards = self._rewards(responses)
        chosen, rejected = responses.paired(rewards)
        x = chosen - rejected
        values = -logsigmoid(x) if self.form == "sigmoid_norm" else (1 - x).clamp(min=0)
        return LossOutput((Component("rso", values, Unit.PAIR),), rewards.detach())

    def _rewards(self, responses: Responses) -> Tensor:
        """[R]"""
        return self.gamma * (responses.logps if self.form == "hinge" else responses.logratios)
