"""Unified language model alignment: demonstrations and single judgements in one."""

from __future__ import annotations

from dataclasses import dataclass

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid, sigmoid

__all__ = ["ULMA"]

POSITIVE = ("logloss", "beta_logloss", "pointwise_dpo", "token_mean")
NEGATIVE = ("binary", "continuous")


@dataclass(frozen=True)
class ULMA:
    """Imitates desirable responses and pushes the others below the reference (ULMA, Cai et al. 2023, arXiv 2312.02554).

        A = logp / |y|,   u = (logp - ref) / |y|        means over response tokens, EOS included

        desirable:    -A                                positive = logloss
                      -beta * A                         positive = beta_logloss
                      -log sigmoid( beta * u + z )      positive = pointwise_dpo
                      -log p(token)                     positive = token_mean
        undesirable:  -log sigmoid( -beta * u - z )     negative = binary
                      (score - beta * u - z)^2          negative = continuous

    The loss is the mean over desirable responses (over their tokens with token_mean) plus the mean over undesirable
    ones, each over the whole optimiser step. A group that nobody is in contributes 0. A row without a label is a
    demonstration and counts as desirable.

    positive: what imitation is. Default logloss, as in the authors' code, which calls token_mean shifted_ce_loss.
    negative: binary, or continuous, which needs scores and fits beta * u to them. Default binary, as in the authors'
        code.
    beta: reward per nat per token; 0.01 to 1. Default 0.1, as in the authors' code.
    z: a constant in place of the log of the prompt's partition function, reward; -1 to 1. Default 0, as in the authors'
        code, which calls it constant_zx.

    Rewards (for the log): sigmoid(beta * u).
    Deviations: in the authors' code desirable means score = 1; here it is the label, so that scores may have any scale.
        Where a group is empty their mean is NaN and replaced by 0, with a gradient that can be NaN. Their means are per
        micro-batch.
    """

    positive: str = "logloss"
    negative: str = "binary"
    beta: float = 0.1
    z: float = 0.0

    def __post_init__(self) -> None:
        if self.positive not in POSITIVE:
            raise ValueError(f"positive must be one of {', '.join(POSITIVE)}, not {self.positive!r}")
        if self.negative not in NEGATIVE:
            raise ValueError(f"negative must be binary or continuous, not {self.negative!r}")
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    @property
    def needs(self) -> frozenset[str]:
        needs = frozenset({"labels", "demonstrations", "reference"})
        return needs | {"scores"} if self.negative == "continuous" else needs

    def __call__(self, responses: Responses) -> LossOutput:
        rewards = sigmoid(self.beta * responses.logratios.detach() / responses.lengths)
        return LossOutput((self._imitation(responses), self._penalty(responses)), rewards)

    def _imitation(self, responses: Responses) -> Component:
        """The term of the desirable responses."""
        desirable = responses.labels
        assert desirable is not None, "needs has labels"
        if self.positive == "token_mean":
            return Component("positive", -responses.token_logps[desirable[responses.row]], Unit.DESIRABLE_TOKEN)
        if self.positive == "pointwise_dpo":
            u = (responses.logratios / responses.lengths)[desirable]
            return Component("positive", -logsigmoid(self.beta * u + self.z), Unit.DESIRABLE)
        weight = self.beta if self.positive == "beta_logloss" else 1.0
        return Component("positive", -responses.mean_logps[desirable], Unit.DESIRABLE, weight)

    def _penalty(self, responses: Responses) -> Component:
        """The term of the undesirable responses."""
        assert responses.labels is not None, "needs has labels"
        undesirable = ~responses.labels
        x = self.beta * (responses.logratios / responses.lengths)[undesirable] + self.z
        if self.negative == "binary":
            return Component("negative", -logsigmoid(-x), Unit.UNDESIRABLE)
        assert responses.scores is not None, "needs has scores"
        return Component("negative", (responses.scores[undesirable] - x).square(), Unit.UNDESIRABLE)
