"""Kahneman-Tversky optimisation: single responses, each marked desirable or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import sigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KTO"]


@dataclass(frozen=True)
class KTO:
    """Raises desirable and lowers undesirable responses, measured from the policy's mean drift (KTO).

    Ethayarajh et al. 2024, arXiv 2402.01306.

        u    = logp - ref,   z = max(0, mean of u over responses to other prompts), without gradient
        loss = desirable_weight   * (1 - sigmoid( beta * (u - z) ))        desirable
        loss = undesirable_weight * (1 - sigmoid( beta * (z - u) ))        undesirable

    logp: sums over response tokens, EOS included. Mean over responses. At policy = reference, with weights 1, the loss
    is 0.5. z estimates KL(policy || reference); a mean over few responses can be negative, so it is cut at 0 after it
    was taken over the whole optimiser step.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as in HALOs and TRL.
    desirable_weight, undesirable_weight: above 0. Default 1. With n_d desirable and n_u undesirable responses the paper
        advises desirable_weight * n_d / (undesirable_weight * n_u) between 1 and 4/3: change the weights where the data
        are out of balance.

    Rewards (for the log): beta * (logp - ref).
    Deviations: z here is one number for the optimiser step, over all micro-batches and ranks. HALOs (the authors' code)
        and TRL estimate it anew for each micro-batch, averaged over ranks, from responses that are shifted by one row,
        so there it depends on how the step is cut and on the order of the rows.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "reference", "kl"})

    def __post_init__(self) -> None:
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")

    def __call__(self, responses: Responses) -> LossOutput:
        assert responses.kl is not None, "needs has kl"
        x = self.beta * (responses.logratios - responses.kl.detach().clamp(min=0))
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("kto", self._values(responses, x), Unit.RESPONSE),), rewards)

    def _values(self, responses: Responses, x: Tensor) -> Tensor:
        """[R] weight * (1 - sigmoid(+x or -x)), by label."""
        import torch

        assert responses.labels is not None, "needs has labels"
        return torch.where(responses.labels, self.desirable_weight * sigmoid(-x), self.undesirable_weight * sigmoid(x))
