"""DPO with other divergences than the reverse KL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import exp_or_line, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FDPO"]

USUAL_ALPHA = 0.5


@dataclass(frozen=True)
class FDPO:
    """DPO whose pull to the reference is an f-divergence (f-DPO, Wang et al. 2023, arXiv 2309.16240).

        u    = logp - ref
        g(u) = -exp(-u)                      divergence = forward_kl
        g(u) = ln 2 - log(1 + exp(-u))       divergence = js
        g(u) = -exp(-alpha * u) / alpha      divergence = alpha
        loss = -log sigmoid( beta * (g(u_w) - g(u_l)) )

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is ln 2. g is f' of
    the ratio exp(u): the reverse KL has g(u) = u and is `loss=dpo`.

    divergence: js (Jensen-Shannon, default), forward_kl or alpha, which lies between the reverse KL (alpha near 0) and
        the forward KL (alpha near 1). Our choice of default: the authors name none.
    beta: strength of the pull to the reference, reward per unit of g; 0.01 to 0.5. Default 0.1, as for DPO; the
        authors' code has none, their scripts 0.01 (IMDB), 0.1 and 0.3 (HH).
    alpha: of divergence=alpha alone, between 0 and 1. Default 0.5, the middle of the authors' 0.1 to 0.9.

    Rewards (for the log): beta * g(u).
    Deviations: where the exponent is above 40, g goes on as a straight line, so that value and gradient stay finite;
    the authors' code overflows. Their power and that of TRL 0.11.4 is -alpha; in TRL 1.16 it is alpha - 1, which is
    the same at 0.5 alone.
    """

    divergence: str = "js"
    beta: float = 0.1
    alpha: float = USUAL_ALPHA
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if self.divergence == "reverse_kl":
            raise ValueError("divergence=reverse_kl is loss=dpo")
        if self.divergence not in ("forward_kl", "js", "alpha"):
            raise ValueError(f"divergence must be forward_kl, js or alpha, not {self.divergence!r}")
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), not {self.alpha}; at 0 it is loss=dpo, at 1 forward_kl")
        if self.divergence != "alpha" and self.alpha != USUAL_ALPHA:
            raise ValueError(f"alpha has no effect with divergence={self.divergence}; leave it at {USUAL_ALPHA}")

    def __call__(self, responses: Responses) -> LossOutput:
        rewards = self.beta * self._shaped(responses.logratios)
        chosen, rejected = responses.paired(rewards)
        values = -logsigmoid(chosen - rejected)
        return LossOutput((Component("f_dpo", values, Unit.PAIR),), rewards.detach())

    def _shaped(self, logratios: Tensor) -> Tensor:
        """g of u."""
        if self.divergence == "js":
            return logsigmoid(logratios) + math.log(2)
        power = 1.0 if self.divergence == "forward_kl" else self.alpha
        return -exp_or_line(-power * logratios) / power
