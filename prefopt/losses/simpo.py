"""Simple preference optimisation: no reference, length-normalised, with a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["SimPO"]


@dataclass(frozen=True)
class SimPO:
    """Logistic loss on the mean token log-probability (Meng et al. 2024, arXiv 2405.14734, eq. 6).

        A    = logp / |y|                   normalisation = length
        A    = logp                         normalisation = none
        x    = beta * (A_w - A_l - gamma_beta_ratio)
        loss = -(1 - label_smoothing) * log sigmoid(x) - label_smoothing * log sigmoid(-x)      form = logistic
        loss = max(0, 1 - x)                                                                    form = hinge

    |y|: response tokens, EOS included. Mean over pairs. There is no NLL term: a mixture has another name. Results that
    are reported for SimPO have both the margin and the normalisation; to leave one out (gamma_beta_ratio = 0,
    normalisation = none) is an ablation of the paper.

    beta: reward per nat per token; the paper searches 2 to 10. Default 2.0 as in the authors' code.
    gamma_beta_ratio: gamma / beta, the margin in nats per token; search 0 to 1. Default 0.5, which the authors' README
        recommends to start from; their config class says 0.25. (In eq. 6, gamma = beta * gamma_beta_ratio.) 0: no
        margin.
    form: logistic (the paper's) or hinge (in the authors' code).
    label_smoothing: probability that a label is wrong, 0 to 0.5; logistic only.
    normalisation: length (the paper's, default) or none: sums, with beta per nat (0.01 to 0.5) and a margin in nats.

    Rewards (for the log): beta * A.
    Deviations: the authors' code takes log-softmax in the model's dtype; here it is float32 or better. Their optional
        `sft_weight` is a mixture with SFT and not part of this method. TRL's `simpo` adds an NLL term by default.
    """

    beta: float = 2.0
    gamma_beta_ratio: float = 0.5
    form: str = "logistic"
    label_smoothing: float = 0.0
    normalisation: str = "length"
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if self.form not in ("logistic", "hinge"):
            raise ValueError(f"form must be logistic or hinge, not {self.form!r}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}")
        if self.form == "hinge" and self.label_smoothing:
            raise ValueError("label_smoothing has no effect with form=hinge; leave it at 0")
        if self.normalisation not in ("length", "none"):
            raise ValueError(f"normalisation must be length or none, not {self.normalisation!r}")

    def __call__(self, responses: Responses) -> LossOutput:
        scores = responses.mean_logps if self.normalisation == "length" else responses.logps
        chosen, rejected = responses.paired(scores)
        x = self.beta * (chosen - rejected - self.gamma_beta_ratio)
        if self.form == "hinge":
            values = (1 - x).clamp(min=0)
        else:
            values = -(1 - self.label_smoothing) * logsigmoid(x) - self.label_smoothing * logsigmoid(-x)
        return LossOutput((Component("simpo", values, Unit.PAIR),), self.beta * scores.detach())
