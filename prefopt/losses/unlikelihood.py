"""Unlikelihood training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import log1mexp

__all__ = ["Unlikelihood"]


@dataclass(frozen=True)
class Unlikelihood:
    """Imitates the chosen response and makes each token of the rejected one less likely, no reference.

    Welleck et al. 2020, arXiv 1908.04319, for repeated tokens; Li et al. 2020, arXiv 1911.03860, for whole responses
    that a model should not give.

        loss = NLL + lam * mean over tokens t of the rejected response of -log(1 - p_t)

    p_t: probability of token t. The NLL of chosen responses is a mean over their tokens, the other term a mean over
    pairs of the mean over the rejected response's tokens, EOS included, both over the whole optimiser step. A baseline:
    tokens that both responses share are pulled both ways.

    lam: weight of the second term; 0.1 to 10, above 0. Default 1.0, as in the authors' runs (rank-alpha).

    Rewards (for the log): logp / |y|.
    Deviations: the authors' negative candidates are earlier tokens of the same text, and sums over them; here they are
    the tokens of the rejected response. log(1 - p) is computed without cancellation; public copies of
    theirs clamp 1 - p at 1e-5.
    """

    lam: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def __post_init__(self) -> None:
        if not self.lam > 0:
            raise ValueError(f"lam must be above 0, not {self.lam}; at 0 it is loss=sft")

    def __call__(self, responses: Responses) -> LossOutput:
        unlikely = responses.summed(-log1mexp(responses.token_logps)) / responses.lengths
        _, rejected = responses.paired(unlikely)
        components = (
            Component("nll", -responses.imitated_token_logps, Unit.TOKEN),
            Component("unlikelihood", rejected, Unit.PAIR, self.lam),
        )
        return LossOutput(components, responses.mean_logps.detach())
