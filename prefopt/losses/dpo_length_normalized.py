"""Length-normalised DPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["LengthNormalizedDPO"]


@dataclass(frozen=True)
class LengthNormalizedDPO:
    """DPO on log-ratios per token (Lambert et al. 2024, Tulu 3, arXiv 2411.15124; TRL's loss_type=sigmoid_norm).

        loss = -log sigmoid( beta * [ (logp_w - ref_w) / |y_w| - (logp_l - ref_l) / |y_l| ] )

    logp: sums over response tokens, EOS included; |y|: their number. Mean over pairs. At policy = reference the loss
    is ln 2.

    beta: strength of the pull to the reference, reward per nat per token; 1 to 10. Default 5.0, as in Tulu 3.

    Rewards (for the log): beta * (logp - ref), sums, as TRL logs them: accuracy and margin are those of the sums.
    Deviations: none. RSO's "sigmoid-norm" is another thing: DPO itself.
    """

    beta: float = 5.0
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios / responses.lengths)
        values = -logsigmoid(self.beta * (chosen - rejected))
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("dpo_length_normalized", values, Unit.PAIR),), rewards)
