"""Alignment via optimal transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AOT"]


@dataclass(frozen=True)
class AOT:
    """Logistic loss between two sorted samples: the chosen shall dominate as a distribution, not pair by pair (AOT).

    Melnyk et al. 2024, arXiv 2406.05882.

        a    = logp_w - logp_l,  b = ref_w - ref_l      variant = paired
        a    = logp_w - ref_w,   b = logp_l - ref_l     variant = unpaired
        x_k  = beta * (a_(k) - b_(k))                   the k-th smallest a and the k-th smallest b of the step
        loss = -(1 - label_smoothing) * log sigmoid(x_k) - label_smoothing * log sigmoid(-x_k)

    logp: sums over response tokens, EOS included. Sorted over all pairs of the optimiser step, mean over pairs. At
    policy = reference the loss is ln 2; with one pair in the step it is DPO, or cDPO with label_smoothing.

    variant: paired (default) or unpaired, which does not see which chosen response belongs to which rejected one.
    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as in TRL.
    label_smoothing: probability that a label is wrong, 0 to 0.5. Default 0, as in TRL.

    Rewards (for the log): beta * (logp - ref).
    Deviations: TRL sorts within a micro-batch on one device, so that its loss changes with gradient accumulation; here
    the whole step is sorted, and pairs of exactly equal values rank in the order in which the step was cut. The paper's
    soft sorting is left out: hard sorting, as in TRL.
    """

    variant: str = "paired"
    beta: float = 0.1
    label_smoothing: float = 0.0
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "step"})

    def __post_init__(self) -> None:
        if self.variant not in ("paired", "unpaired"):
            raise ValueError(f"variant must be paired or unpaired, not {self.variant!r}")
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}")

    def observe(self, responses: Responses) -> Tensor:
        """[P, 2] a and b of each pair."""
        import torch

        return torch.stack(self._sides(responses), 1).detach()

    def __call__(self, responses: Responses) -> LossOutput:
        assert responses.whole_step is not None, "needs has step"
        a, b = self._sides(responses)
        every_a, every_b = responses.whole_step.values.unbind(1)
        own = responses.whole_step.own
        values = self._penalty(a - _partners(every_a, every_b)[own])
        if self.variant == "unpaired":
            # Every pair of the step is counted at its a. Its b has a gradient through the a it is matched with, which
            # may be in another micro-batch: a second term with that a held fixed, of value 0, has this gradient.
            of_b = self._penalty(_partners(every_b, every_a)[own] - b)
            values = values + (of_b - of_b.detach())
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("aot", values, Unit.PAIR),), rewards)

    def _sides(self, responses: Responses) -> tuple[Tensor, Tensor]:
        """[P] a and b."""
        if self.variant == "unpaired":
            return responses.paired(responses.logratios)
        assert responses.reference_logps is not None, "needs has reference"
        chosen, rejected = responses.paired(responses.logps)
        reference_chosen, reference_rejected = responses.paired(responses.reference_logps)
        return chosen - rejected, reference_chosen - reference_rejected

    def _penalty(self, differences: Tensor) -> Tensor:
        x = self.beta * differences
        return -(1 - self.label_smoothing) * logsigmoid(x) - self.label_smoothing * logsigmoid(-x)


def _partners(values: Tensor, others: Tensor) -> Tensor:
    """For each of `values` the one of `others` that has the same rank. Equal values rank in the order of the step."""
    ranks = values.argsort(stable=True).argsort(stable=True)
    return others.sort().values[ranks]
