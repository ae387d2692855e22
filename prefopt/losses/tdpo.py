"""Token-level DPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TDPO"]

USUAL_ALPHA = 0.5


@dataclass(frozen=True)
class TDPO:
    """DPO that holds the KL divergence at every token (TDPO, Zeng et al. 2024, arXiv 2404.11999).

        u    = logp - ref
        k    = sum over response tokens t of KL(reference || policy) at t
        loss = -log sigmoid( beta * [ u_w - u_l - (k_l - k_w) ] )                variant = tdpo1
        loss = -log sigmoid( beta * [ u_w - u_l - alpha * (k_l - sg(k_w)) ] )    variant = tdpo2

    logp: sums over response tokens, EOS included; sg: no gradient. Mean over pairs. At policy = reference the loss is
    ln 2. k has a gradient, so it needs a reference that runs along and not its log-probabilities alone. Both variants
    hold the divergence on rejected responses down; tdpo1 draws it up on chosen ones, which tdpo2 leaves alone.

    variant: tdpo2 (the paper's better one, default) or tdpo1. The authors recommend tdpo1 for low learning rates,
        tdpo2 for higher ones; their tdpo.yaml has had both as its default.
    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as in the authors' yaml.
    alpha: of tdpo2 alone: weight of the divergences, 0 (which is DPO, refused) to 2. Default 0.5, as there.

    Rewards (for the log): beta * (u + k), as the authors log them.
    Deviations: none.
    """

    variant: str = "tdpo2"
    beta: float = 0.1
    alpha: float = USUAL_ALPHA
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "forward_kl"})

    def __post_init__(self) -> None:
        if self.variant not in ("tdpo1", "tdpo2"):
            raise ValueError(f"variant must be tdpo1 or tdpo2, not {self.variant!r}")
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if self.variant == "tdpo1" and self.alpha != USUAL_ALPHA:
            raise ValueError(f"alpha has no effect with variant=tdpo1; leave it at {USUAL_ALPHA}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, not {self.alpha}; at 0 it is loss=dpo")

    def __call__(self, responses: Responses) -> LossOutput:
        assert responses.forward_kl is not None, "needs has forward_kl"
        divergences = responses.summed(responses.forward_kl)
        chosen, rejected = responses.paired(responses.logratios)
        held = self._held(*responses.paired(divergences))
        values = -logsigmoid(self.beta * (chosen - rejected - held))
        rewards = self.beta * (responses.logratios + divergences).detach()
        return LossOutput((Component("tdpo", values, Unit.PAIR),), rewards)

    def _held(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """[P] what the divergences of the chosen and the rejected responses take off the log-ratio."""
        if self.variant == "tdpo1":
            return rejected - chosen
        return self.alpha * (rejected - chosen.detach())
