"""DPO for rankings of any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PlackettLuceDPO"]


@dataclass(frozen=True)
class PlackettLuceDPO:
    """DPO on a whole ranking by the Plackett-Luce model (Rafailov et al. 2023, arXiv 2305.18290, appendix A.3).

        u    = beta * (logp - ref)
        loss = sum over the responses i of a prompt of
               -log( exp(u_i) / sum of exp(u_j) over all j with score_j <= score_i )

    logp: sums over response tokens, EOS included. Sum over the responses of a prompt, mean over prompts. Two responses
    make it exactly `loss=dpo`. At policy = reference k responses with different scores give ln k!.

    Tied responses stand in each other's denominators (Breslow's approximation for ties), so they are drawn together and
    below what is ranked above them.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.1, as for `loss=dpo`; the paper
        has no experiments with rankings.

    Rewards (for the log): beta * (logp - ref).
    Deviations: the paper has no ties.
    """

    beta: float = 0.1
    needs: ClassVar[frozenset[str]] = frozenset({"ranking", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    def __call__(self, responses: Responses) -> LossOutput:
        import torch

        rows = torch.arange(len(responses.lengths), device=responses.lengths.device)
        values = responses.per_example(self._choices(responses), rows)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("plackett_luce_dpo", values, Unit.EXAMPLE),), rewards)

    def _choices(self, responses: Responses) -> Tensor:
        """[R] -log of the probability that each response is taken first among those that are not ranked above it."""
        import torch

        assert responses.scores is not None, "needs has ranking"
        same = responses.example[:, None] == responses.example[None, :]
        rivals = same & (responses.scores[None, :] <= responses.scores[:, None])
        rivals = rivals & ~torch.eye(len(rivals), dtype=torch.bool, device=rivals.device)
        # A finite stand-in for -inf: a response without rivals then has value 0 and gradient 0, where -inf gives NaN.
        differences = self.beta * (responses.logratios[None, :] - responses.logratios[:, None])
        ahead = differences.masked_fill(~rivals, torch.finfo(differences.dtype).min)
        return -logsigmoid(-torch.logsumexp(ahead, 1))
