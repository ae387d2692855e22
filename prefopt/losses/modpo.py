"""Multi-objective DPO."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MODPO"]

STEEP = 10.0
"""Factor 1 / w0 above which `MODPO.notes` has something to say."""


@dataclass(frozen=True)
class MODPO:
    """DPO on one objective with the rewards of the others as margins (MODPO, Zhou et al. 2023, arXiv 2310.03708).

        R    = ( beta * (logp - ref) - sum over j >= 1 of w_j * m_j ) / w_0
        loss = -log sigmoid( R_w - R_l )           form = logistic
        loss = max(0, 1 - (R_w - R_l))             form = hinge

    logp: sums over response tokens, EOS included; m_j: what the j-th other objective gives the response. Mean over
    pairs. At policy = reference and equal margins the loss is ln 2 (1 with hinge). Where it is least, beta * (logp -
    ref) is w_0 times the reward of the preference plus the w_j * m_j, up to a constant of the prompt.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as in the authors' code.
    weights: one number per objective, 0 to 1 and of any sum. The first, above 0, belongs to the preference that the
        pairs express, the others to the margins of the data in their order. Default [0.5, 0.5]: one other objective
        of equal weight, the middle of the authors' 0.1, 0.5 and 0.9. Both terms of R are divided by the first, so a
        small one makes rewards and gradients large.
    form: logistic (default) or hinge, both in the authors' code.

    Rewards (for the log): R.
    Deviations: none from the loss. The authors' script for a penalty on length keeps its margin in bfloat16, wrong
    beyond 256 tokens; margins here are float64.
    """

    beta: float = 0.1
    weights: list[float] = field(default_factory=lambda: [0.5, 0.5])
    form: str = "logistic"
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "margins"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if len(self.weights) < 2:
            raise ValueError(f"weights must be two numbers or more, not {self.weights}; with one it is loss=dpo")
        if not self.weights[0] > 0:
            raise ValueError(f"the first of weights must be above 0, not {self.weights[0]}")
        if self.form not in ("logistic", "hinge"):
            raise ValueError(f"form must be logistic or hinge, not {self.form!r}")

    @property
    def num_margins(self) -> int:
        """How many margins each response must have."""
        return len(self.weights) - 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told of these settings, a sentence each."""
        factor = 1 / self.weights[0]
        if factor <= STEEP:
            return ()
        return (f"weights[0] = {self.weights[0]} multiplies rewards, margins and gradients by {factor:.3g}.",)

    def __call__(self, responses: Responses) -> LossOutput:
        rewards = self._rewards(responses)
        chosen, rejected = responses.paired(rewards)
        x = chosen - rejected
        values = -logsigmoid(x) if self.form == "logistic" else (1 - x).clamp(min=0)
        return LossOutput((Component("modpo", values, Unit.PAIR),), rewards.detach())

    def _rewards(self, responses: Responses) -> Tensor:
        """[R]"""
        assert responses.margins is not None, "needs has margins"
        margins = responses.margins
        others = margins @ margins.new_tensor(self.weights[1:])
        return (self.beta * responses.logratios - others) / self.weights[0]
