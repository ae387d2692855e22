"""Sequence likelihood calibration by the scores of a model's own candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefopt.batch import Component, LossOutput, Responses, Unit

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SLiC"]

CALIBRATIONS = {
    "rank": frozenset({"pairs"}),
    "margin": frozenset({"pairs", "scores"}),
    "list_rank": frozenset({"ranking"}),
    "reward": frozenset({"ranking"}),
}
REGULARISERS = {
    "cross_entropy": frozenset[str](),
    "kl_policy_to_finetuned": frozenset({"reverse_kl"}),
    "kl_finetuned_to_policy": frozenset({"forward_kl"}),
    "none": frozenset[str](),
}
"""What each choice needs."""


@dataclass(frozen=True)
class SLiC:
    """Orders candidates' log-probabilities by score, with a regulariser on a target (SLiC).

    Zhao et al. 2022, arXiv 2210.00045.

        loss = calibration + lam * regulariser

        rank:      max(0, beta - logp_w + logp_l)                               mean over pairs
        margin:    max(0, beta * (score_w - score_l) - logp_w + logp_l)         mean over pairs
        list_rank: sum over score_i > score_j of max(0, beta * (place_j - place_i) - logp_i + logp_j)
        reward:    -sum over i of score_i * P_i / sum of P_j,   P = exp(logp)

        cross_entropy:          -logp of the target
        kl_policy_to_finetuned: sum over the target's tokens of KL(policy || reference)
        kl_finetuned_to_policy: sum over the target's tokens of KL(reference || policy)

    logp: sums over response tokens, EOS included. list_rank, reward and the regulariser are means over prompts. The
    reference is the fine-tuned model that training starts from. place: how many candidates of the prompt score higher.

    calibration: default rank, the best in the paper's ablation.
    regulariser: default cross_entropy, in the paper's ablation as good as the KL, and no second model is run for it.
    beta: margin: nats (rank), nats per unit of score (margin), nats per place (list_rank); 1 to 10 for rank. null: 1.0,
        the margin of SLiC-HF (Zhao et al. 2023); this paper sets it by the kind of loss, its values were not found. No
        effect with reward.
    lam: weight of the regulariser; 0.01 to 1. null: 0.1, as for `loss=slic_hf`; the paper's was not found.
    target: what the regulariser imitates.
        best: the chosen or best response (default).
        y_ref: the data's own answer beside the candidates, column y_ref, which then is no candidate: the paper's.

    Rewards (for the log): logp.
    Deviations: no code of the authors was found and the direction of the paper's KL is not certain, so there are both.
        The paper draws pairs at random; here they are those of the data. Candidates with equal scores share a place.
    """

    calibration: str = "rank"
    regulariser: str = "cross_entropy"
    beta: float | None = None
    lam: float | None = None
    target: str = "best"

    def __post_init__(self) -> None:
        if self.calibration not in CALIBRATIONS:
            raise ValueError(f"calibration must be one of {', '.join(CALIBRATIONS)}, not {self.calibration!r}")
        if self.regulariser not in REGULARISERS:
            raise ValueError(f"regulariser must be one of {', '.join(REGULARISERS)}, not {self.regulariser!r}")
        if self.target not in ("best", "y_ref"):
            raise ValueError(f"target must be best or y_ref, not {self.target!r}")
        if self.regulariser == "none" and self.target == "y_ref":
            raise ValueError("target has no effect with regulariser=none; leave it at best")
        self._fill("beta", 1.0, "calibration", "reward")
        self._fill("lam", 0.1, "regulariser", "none")

    def _fill(self, name: str, default: float, decided_by: str, without: str) -> None:
        """Put in the number that null stands for, so that written down or not it is the same run."""
        value = getattr(self, name)
        if getattr(self, decided_by) == without:
            if value is not None:
                raise ValueError(f"{name} has no effect with {decided_by}={without}; leave it at null")
        elif value is None:
            object.__setattr__(self, name, default)
        elif not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")

    @property
    def needs(self) -> frozenset[str]:
        target = {"targets"} if self.target == "y_ref" else set()
        return CALIBRATIONS[self.calibration] | REGULARISERS[self.regulariser] | target

    def __call__(self, responses: Responses) -> LossOutput:
        components = [self._calibration(responses)]
        if self.regulariser != "none":
            assert self.lam is not None
            components.append(Component("regulariser", self._regulariser(responses), Unit.EXAMPLE, self.lam))
        return LossOutput(tuple(components), responses.logps.detach())

    def _calibration(self, responses: Responses) -> Component:
        if self.calibration == "reward":
            return Component("calibration", self._reward(responses), Unit.EXAMPLE)
        assert self.beta is not None
        if self.calibration == "list_rank":
            return Component("calibration", self._list_rank(responses, self.beta), Unit.EXAMPLE)
        chosen, rejected = responses.paired(responses.logps)
        margin: float | Tensor = self.beta
        if self.calibration == "margin":
            assert responses.scores is not None, "needs has scores"
            higher, lower = responses.paired(responses.scores)
            margin = self.beta * (higher - lower)
        return Component("calibration", (margin - chosen + rejected).clamp(min=0), Unit.PAIR)

    def _list_rank(self, responses: Responses, beta: float) -> Tensor:
        """[E] hinge over every two candidates whose scores differ, by how many places they are apart."""
        candidate = self._is_candidate(responses)
        ranked = responses.ranked_pairs
        higher, lower = ranked[candidate[ranked].all(1)].unbind(1)
        place = lower.new_zeros(len(candidate)).index_add(0, lower, lower.new_ones(len(lower)))
        hinge = beta * (place[lower] - place[higher]) - responses.logps[higher] + responses.logps[lower]
        return responses.per_example(hinge.clamp(min=0), higher)

    def _reward(self, responses: Responses) -> Tensor:
        """[E] minus the expected score of a candidate drawn by the policy."""
        import torch

        assert responses.scores is not None, "needs has ranking"
        rows = self._is_candidate(responses).nonzero().flatten()
        logps, example = responses.logps[rows], responses.example[rows]
        others = (logps[None, :] - logps[:, None]).masked_fill(example[:, None] != example[None, :], -torch.inf)
        probabilities = torch.exp(-torch.logsumexp(others, 1))
        return responses.per_example(-responses.scores[rows] * probabilities, rows)

    def _is_candidate(self, responses: Responses) -> Tensor:
        """[R] whether a response is a candidate, not the y_ref."""
        import torch

        candidate = torch.ones_like(responses.lengths, dtype=torch.bool)
        return candidate.index_fill(0, self._target_rows(responses), False) if self.target == "y_ref" else candidate

    def _target_rows(self, responses: Responses) -> Tensor:
        """[E] what the regulariser imitates."""
        if self.target == "best":
            return responses.best
        assert responses.targets is not None, "needs has targets"
        return responses.targets

    def _regulariser(self, responses: Responses) -> Tensor:
        """[E]"""
        if self.regulariser == "cross_entropy":
            return -responses.logps[self._target_rows(responses)]
        towards = self.regulariser == "kl_policy_to_finetuned"
        token_kl = responses.reverse_kl if towards else responses.forward_kl
        assert token_kl is not None, "needs has the KL"
        return responses.summed(token_kl)[self._target_rows(responses)]
