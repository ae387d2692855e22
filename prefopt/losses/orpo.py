"""Odds-ratio preference optimisation: imitation and a preference term in one, no reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import log1mexp, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ORPO"]


@dataclass(frozen=True)
class ORPO:
    """NLL of the chosen response plus a logistic loss on the log odds ratio.

    Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7.

        A    = logp / |y|                      mean over response tokens, EOS included; p = exp(A)
        odds = p / (1 - p)
        loss = NLL + lam * -log sigmoid( log odds_w - log odds_l )

    The NLL is a mean over tokens, the odds-ratio term a mean over pairs, both over the whole optimiser step.

    lam: weight of the odds-ratio term; 0.05 to 1. Default 0.1, as in the authors' Mistral-ORPO runs and TRL (there
        called beta); the default of the authors' code is 1.0.
    nll_over: response: tokens of the chosen response, the paper's equation (default).
        sequence: prompt and chosen response, as the authors' code and TRL do; recipes that repeat their runs use it.

    Rewards (for the log): lam * A.
    Deviations: the authors' code counts one padding token into A and drops EOS from the NLL where pad = EOS; neither is
        done here. log(1 - p) is computed without cancellation and in float64; the authors' is -inf near p = 1.
    """

    lam: float = 0.1
    nll_over: str = "response"

    def __post_init__(self) -> None:
        if not self.lam >= 0:
            raise ValueError(f"lam must be 0 or more, not {self.lam}")
        if self.nll_over not in ("response", "sequence"):
            raise ValueError(f"nll_over must be response or sequence, not {self.nll_over!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pairs", "prompt_logps"} if self.nll_over == "sequence" else {"pairs"})

    def __call__(self, responses: Responses) -> LossOutput:
        odds = Component("odds_ratio", -logsigmoid(self.log_odds_ratio(responses)), Unit.PAIR, self.lam)
        return LossOutput((self._nll(responses), odds), self.lam * responses.mean_logps.detach())

    @staticmethod
    def log_odds_ratio(responses: Responses) -> Tensor:
        """[P] log odds_w - log odds_l."""
        chosen, rejected = responses.paired(responses.mean_logps)
        return (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))

    def _nll(self, responses: Responses) -> Component:
        imitated = -responses.imitated_token_logps
        if self.nll_over == "response":
            return Component("nll", imitated, Unit.TOKEN)
        import torch

        assert responses.prompt_logps is not None, "needs has prompt_logps"
        return Component("nll", torch.cat((imitated, -responses.prompt_logps)), Unit.SEQUENCE_TOKEN)
