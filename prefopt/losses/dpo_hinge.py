"""Hinge loss on log-ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit

__all__ = ["DPOHinge"]


@dataclass(frozen=True)
class DPOHinge:
    """Hinge loss on the difference of log-ratios ("hinge-norm" of RSO, Liu et al. 2023, arXiv 2309.06657).

        loss = max(0, 1 - beta * [ (logp_w - ref_w) - (logp_l - ref_l) ])

    logp: sums over response tokens, EOS included. Mean over pairs. At policy = reference the loss is 1.

    beta: RSO's gamma, reward per nat; the margin asked for is 1 / beta nats. 0.01 to 0.5. Default 0.1, as in TRL's
        loss_type=hinge; RSO uses 0.05.

    Rewards (for the log): beta * (logp - ref).
    Deviations: none. `loss=rso` has this loss as form=hinge_norm, beside RSO's other two; SLiC-HF's hinge is on plain
    log-probabilities: `loss=slic_hf`.
    """

    beta: float = 0.1
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    def __call__(self, responses: Responses) -> LossOutput:
        chosen, rejected = responses.paired(responses.logratios)
        values = (1 - self.beta * (chosen - rejected)).clamp(min=0)
        rewards = self.beta * responses.logratios.detach()
        return LossOutput((Component("dpo_hinge", values, Unit.PAIR),), rewards)
