"""Efficient exact optimisation, pairwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid, sigmoid

__all__ = ["EXO"]


@dataclass(frozen=True)
class EXO:
    """Reverse KL from the policy's preference to a smoothed label (EXO, Ji et al. 2024, arXiv 2402.00856, K = 2).

        q    = sigmoid( beta * [ (logp_w - ref_w) - (logp_l - ref_l) ] )
        loss = q * (log q - log(1 - e)) + (1 - q) * (log(1 - q) - log e)        e = label_smoothing

    logp: sums over response tokens, EOS included. Mean over pairs. It is 0 where q = 1 - e. At policy = reference it
    is -ln 2 - (log(1 - e) + log e) / 2.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.5, as in the authors' scripts
        for HH and TL;DR; that for IMDB has 0.1.
    label_smoothing: probability that a label is wrong, above 0 (log e) and below 0.5; 1e-4 to 0.1. Default 1e-3, what
        TRL 0.11 takes where it is given 0.

    Rewards (for the log): beta * (logp - ref).
    Deviations: the authors' code has unnormalised labels (0, -10), e = 4.5e-5 without log(1 - e). TRL 0.11 changes e =
    0 silently; here it is refused.
    """

    beta: float = 0.5
    label_smoothing: float = 0.001
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not 0 < self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in (0, 0.5), not {self.label_smoothing}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        x = self.beta * (chosen - rejected)
        right = sigmoid(x) * (logsigmoid(x) - math.log1p(-self.label_smoothing))
        values = right + sigmoid(-x) * (logsigmoid(-x) - math.log(self.label_smoothing))
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("exo_pair", values, Unit.PAIR),), rewards)
