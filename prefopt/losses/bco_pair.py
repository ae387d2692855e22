"""Binary classifier optimisation, pairwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BCOPair"]


@dataclass(frozen=True)
class BCOPair:
    """Classifies each response as chosen or rejected by its reward (BCO, Jung et al. 2024, arXiv 2404.04656).

        r     = beta * (logp - ref)
        delta = mean over the pairs of the step of (r_w + r_l) / 2      no gradient; 0 with shift = zero
        loss  = -log sigmoid(r_w - delta) - log sigmoid(-(r_l - delta))

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is 2 ln 2.

    beta: strength of the pull to the reference, reward per nat; 0.01 to 0.5. Default 0.01, the paper's according to
        TRL's paper index; TRL's default is 0.1.
    shift: step (delta of all pairs of the optimiser step, over all micro-batches and ranks, default) or zero.

    Rewards (for the log): r.
    Deviations: TRL 0.11.4 and LLaMA-Factory have for delta a running mean over all batches so far, a state that a
    checkpoint has to keep and that depends on how a batch was cut; delta of one step is that mean without its memory,
    and noisier where a step has few pairs. TRL 1.x and Liger have no shift: shift=zero.
    """

    beta: float = 0.01
    shift: str = "step"

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if self.shift not in ("step", "zero"):
            raise ValueError(f"shift must be step or zero, not {self.shift!r}")

    @property
    def needs(self) -> frozenset[str]:
        pairs = {"pairs", "reference"}
        return frozenset(pairs | {"step"} if self.shift == "step" else pairs)

    def observe(self, responses: Responses) -> Tensor:
        """[P, 1] mean reward of each pair."""
        chosen, rejected = responses.paired(self.beta * responses.logratios.detach())
        return ((chosen + rejected) / 2).unsqueeze(1)

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(self.beta * responses.logratios - self._shift(responses))
        values = -logsigmoid(chosen) - logsigmoid(-rejected)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("bco_pair", values, Unit.PAIR),), rewards)

    def _shift(self, responses: Responses) -> Tensor | float:
        if self.shift == "zero":
            return 0.0
        assert responses.whole_step is not None, "needs has step"
        return responses.whole_step.values.mean()
