"""Rank responses to align with human feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefopt.batch import Component, LossOutput, Responses, Unit

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RRHF"]


@dataclass(frozen=True)
class RRHF:
    """Hinge on every two responses to a prompt plus imitation of the best one, no reference (RRHF).

    Yuan et al. 2023, arXiv 2304.05302.

        p    = logp / n^length_penalty
        loss = rank_weight * sum over score_i < score_j of max(0, p_i - p_j) + NLL of the best response

    logp: sums over response tokens, EOS included. Both terms are means over prompts. There is no margin: a prompt whose
    responses are in order contributes the NLL alone. Responses with equal scores are not compared.

    length_penalty: exponent of the length; 0 (sums) to 2. Default 1.0, as in the authors' scripts.
    rank_weight: weight of the hinge; above 0, 1 to 100. Default 1.0, as in the paper's equation and the authors'
        scripts; the dataclass of their code says 100.
    denominator: what n is.
        response: tokens of the response, the paper's equation (default).
        padded: tokens of the prompt and its longest response, which the published code computes (its labels are
            overwritten before they are counted); for repeating its runs.
    sft: the NLL, per prompt.
        sum: over the tokens of the best response, the paper's equation (default).
        mean_response: its mean per token.
        mean_padded: the sum divided by tokens of the prompt and its longest response, as the published code does.

    Rewards (for the log): p.
    Deviations: the published code takes one prompt per device and no more, so that its padded width is that prompt's
        own; here a batch holds any number of prompts.
    """

    length_penalty: float = 1.0
    rank_weight: float = 1.0
    denominator: str = "response"
    sft: str = "sum"
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})

    def __post_init__(self) -> None:
        if not self.length_penalty >= 0:
            raise ValueError(f"length_penalty must be 0 or more, not {self.length_penalty}")
        if not self.rank_weight > 0:
            raise ValueError(f"rank_weight must be above 0, not {self.rank_weight}; at 0 it is loss=sft")
        if self.denominator not in ("response", "padded"):
            raise ValueError(f"denominator must be response or padded, not {self.denominator!r}")
        if self.sft not in ("sum", "mean_response", "mean_padded"):
            raise ValueError(f"sft must be sum, mean_response or mean_padded, not {self.sft!r}")
        if self.denominator == "padded" and self.length_penalty == 0:
            raise ValueError("denominator=padded has no effect with length_penalty=0")

    def __call__(self, responses: Responses) -> LossOutput:
        p = self._length_normalised(responses)
        higher, lower = responses.ranked_pairs.unbind(1)
        hinge = responses.per_example((p[lower] - p[higher]).clamp(min=0), higher)
        components = (
            Component("rank", hinge, Unit.EXAMPLE, self.rank_weight),
            Component("nll", self._nll(responses), Unit.EXAMPLE),
        )
        return LossOutput(components, p.detach())

    def _length_normalised(self, responses: Responses) -> Tensor:
        """[R] logp / n^length_penalty."""
        in_full = self.denominator == "padded"
        lengths = self._padded_widths(responses)[responses.example] if in_full else responses.lengths
        return responses.logps / lengths.to(responses.logps.dtype) ** self.length_penalty

    def _nll(self, responses: Responses) -> Tensor:
        """[E] of the best response."""
        nll = -responses.logps[responses.best]
        if self.sft == "sum":
            return nll
        lengths = responses.lengths[responses.best] if self.sft == "mean_response" else self._padded_widths(responses)
        return nll / lengths

    @staticmethod
    def _padded_widths(responses: Responses) -> Tensor:
        """[E] tokens of the prompt and its longest response."""
        assert responses.prompt_lengths is not None, "batches carry prompt_lengths"
        longest = responses.prompt_lengths.new_zeros(responses.best.shape[0])
        longest = longest.scatter_reduce(0, responses.example, responses.lengths, "amax")
        return responses.prompt_lengths + longest
