"""Weighted preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WPO"]


@dataclass(frozen=True)
class WPO:
    """DPO in which a pair counts as much as the policy itself would say it (WPO, Zhou et al. 2024, arXiv 2406.11827).

        a    = mean over response tokens of ( logp_t - log sum_v p_t(v)^2 )
        w    = min(1, exp(a_w + a_l))        no gradient
        x    = beta * [ (logp_w - ref_w) - (logp_l - ref_l) ]
        loss = w * ( -(1 - label_smoothing) * log sigmoid(x) - label_smoothing * log sigmoid(-x) )

    logp_t: log-probability of token t, logp: their sum, EOS included; p_t(v): the policy's distribution at that
    place. Mean over pairs, and not over weights. At policy = reference the loss is the mean of w * ln 2. A token drawn
    from the policy has logp_t near log sum_v p_t(v)^2, so a pair of its own responses has a weight near 1.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.01, as in the authors' configs.
    clamp: at_one (w is 1 at most, as in the authors' code, default) or none (w = exp(a_w + a_l), as in TRL).
    label_smoothing: probability that a label is wrong, 0 to 0.5. Default 0, as in the authors' configs.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none from the authors' code. TRL leaves the clamp out.
    """

    beta: float = 0.01
    clamp: str = "at_one"
    label_smoothing: float = 0.0
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "collision"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if self.clamp not in ("at_one", "none"):
            raise ValueError(f"clamp must be at_one or none, not {self.clamp!r}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        x = self.beta * (chosen - rejected)
        values = -(1 - self.label_smoothing) * logsigmoid(x) - self.label_smoothing * logsigmoid(-x)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("wpo", self.weights(responses) * values, Unit.PAIR),), rewards)

    def weights(self, responses: Responses) -> Tensor:
        """[P] w, without gradient."""
        assert responses.collision is not None, "needs has collision"
        likely = responses.summed(responses.token_logps.detach() - responses.collision.detach()) / responses.lengths
        chosen, rejected = responses.paired(likely)
        exponent = chosen + rejected
        return (exponent.clamp(max=0) if self.clamp == "at_one" else exponent).exp()
