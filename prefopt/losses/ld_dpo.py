"""Length-desensitised DPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LDDPO"]


@dataclass(frozen=True)
class LDDPO:
    """DPO in which tokens beyond the length of the shorter response count less (LD-DPO).

    Liu et al. 2024, arXiv 2409.06411.

        m    = min(|y_w|, |y_l|)
        u    = sum over the first m tokens of (logp_t - ref_t) + ld_alpha * sum over the rest of the same
        loss = -log sigmoid( beta * (u_w - u_l) )

    logp_t: log-probability of token t; |y|: response tokens, EOS included. Mean over pairs. At policy = reference the
    loss is ln 2.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as for DPO and in TRL.
    ld_alpha: weight of the tail, 0 (left out) to 1 (which is `loss=dpo`, refused). Default 0.5, best for
        Llama-3-8B-Instruct in the paper, which tunes it for each model; TRL has none.

    Rewards (for the log): beta * u, with the m of the response's pair; the mean over its pairs where there are several,
        and the whole sum where there is none.
    Deviations: none. EOS is a token of the tail like any other.
    """

    beta: float = 0.1
    ld_alpha: float = 0.5
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "reference_tokens"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not 0 <= self.ld_alpha < 1:
            raise ValueError(f"ld_alpha must be in [0, 1), not {self.ld_alpha}; at 1 it is loss=dpo")

    def __call__(self, responses: Responses) -> LossOutput:
        shared = responses.lengths[responses.pairs].amin(dim=1)
        logratios = responses.logratios
        chosen, rejected = (
            self.ld_alpha * logratios[rows] + (1 - self.ld_alpha) * _heads(responses, rows, shared)
            for rows in responses.pairs.unbind(1)
        )
        values = -logsigmoid(self.beta * (chosen - rejected))
        rewards = self.beta * _mean_over_pairs(responses, chosen.detach(), rejected.detach())
        return LossOutput((Component("ld_dpo", values, Unit.PAIR),), rewards)


def _heads(responses: Responses, rows: Tensor, num_tokens: Tensor) -> Tensor:
    """[P] log-ratio of the first `num_tokens` tokens of each of `rows`.

    Each token is gathered and added to its own pair alone: a difference of running sums over the batch would carry a
    number that is not finite into every response behind it.
    """
    import torch

    assert responses.reference_token_logps is not None, "needs has reference_tokens"
    tokens = responses.token_logps.to(responses.logps.dtype) - responses.reference_token_logps
    places = torch.arange(len(rows), device=rows.device)
    pair = torch.repeat_interleave(places, num_tokens)
    first = (responses.lengths.cumsum(0) - responses.lengths)[rows]
    nth = torch.arange(len(pair), device=rows.device) - (num_tokens.cumsum(0) - num_tokens)[pair]
    return tokens.new_zeros(len(rows)).index_add(0, pair, tokens[first[pair] + nth])


def _mean_over_pairs(responses: Responses, chosen: Tensor, rejected: Tensor) -> Tensor:
    """[R] each response's mean of what it is in its pairs; its log-ratio where it is in none."""
    import torch

    rows = responses.pairs.T.flatten()
    whole = responses.logratios.detach()
    values = torch.cat((chosen, rejected))
    sums = torch.zeros_like(whole).index_add(0, rows, values)
    times = torch.zeros_like(whole).index_add(0, rows, torch.ones_like(values))
    return torch.where(times > 0, sums / times.clamp(min=1), whole)
