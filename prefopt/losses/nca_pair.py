"""Noise-contrastive alignment, pairwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["NCA"]


@dataclass(frozen=True)
class NCA:
    """Classifies each response against the reference, to keep the chosen one's likelihood from falling.

    NCA, Chen et al. 2024, arXiv 2402.05369, for two responses.

        u    = beta * (logp - ref)
        loss = -log sigmoid(u_w) - 1/2 log sigmoid(-u_w) - 1/2 log sigmoid(-u_l)

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is 2 ln 2.

    beta: strength of the pull to the reference, reward per nat; 0.001 to 0.1. Default 0.01, as in the authors'
        recipes.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none.
    """

    beta: float = 0.01
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(self.beta * responses.logratios)
        values = -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("nca_pair", values, Unit.PAIR),), rewards)
