"""Score by how much a response says what a target says, by a model's states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prefopt.errors import RunError
from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.records import Example

if TYPE_CHECKING:
    from torch import Tensor

    from prefopt.pairs.packed import PackedModel

__all__ = ["Similarity"]

NO_TARGET = "no target to compare with"
TOO_SHORT = "shorter than every span"


@dataclass(frozen=True)
class Similarity:
    """F1 over spans of hidden states of a candidate and a target (SLiC, Zhao et al. 2022, arXiv 2210.00045).

        s(i, j)  = mean over t < n of cos(candidate_{i+t}, target_{j+t})             spans of n tokens
        P_n      = mean over i of max over j of s(i, j)      R_n = mean over j of max over i of s(i, j)
        F_n      = 2 P_n R_n / (P_n + R_n)
        score    = mean of F_n over the spans that fit into both

    States of the last layer at the tokens of the response after its prompt, EOS left aside. The target is the row's own
    answer (column y_ref), else its best given response: of the highest score, the first on ties and without scores.

    model: whose states, a folder, hub name or adapters; empty: the policy, where there is one and not several.
    spans: lengths in tokens. Default 1, 2, 4, 8, as in the paper.

    Deviations: no code of the authors was found; how a span is represented, and equal weights of the lengths, are a
        convention. Where P or R is not above 0, F is 0. Theirs are states of T5's decoder.
    """

    model: str = ""
    spans: list[int] = field(default_factory=lambda: [1, 2, 4, 8])

    def __post_init__(self) -> None:
        if not self.spans or min(self.spans) < 1 or len(set(self.spans)) < len(self.spans):
            raise ValueError(f"spans must be different lengths of 1 token or more, not {self.spans}")

    @property
    def uses(self) -> frozenset[str]:
        """Keys of models that must be given."""
        return frozenset() if self.model else frozenset({"policy"})

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a model that is no language model, or not clear."""
        from prefopt.pairs.model_checks import own_model

        own_model(self.model, asked, "score=similarity")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that scores. Raises: UserError for a model that is missing, no language model, or not clear."""
        from prefopt.pairs.score_models import open_policy

        model = open_policy(place, self.model, "score=similarity")
        # An Example at a time: states are kept until they are compared, and are large.
        return lambda examples: [self._judged(example, model) for example in examples]

    def _judged(self, example: Example, model: PackedModel) -> Judged:
        count = len(example.candidates)
        target = target_of(example)
        if target is None:
            return Judged((None,) * count, (NO_TARGET,) * count)
        tokens = model.encoder(example, [candidate.text for candidate in example.candidates] + [target])
        *reasons, of_target = tokens.reasons
        if of_target is not None:
            return Judged((None,) * count, (f"target: {of_target}",) * count)
        ((*states, aim),) = model.states([tokens])
        assert aim is not None, "the target has ids"
        scores = [None if found is None else span_f1(found, aim, self.spans) for found in states]
        for place, score in enumerate(scores):
            if score is not None and not math.isfinite(score):
                raise RunError(
                    f"{example.id}: the similarity of candidate {place + 1} by {model.encoder.model} is not finite",
                    "take another model, or dtype=float32",
                )
            if score is None and reasons[place] is None:
                reasons[place] = TOO_SHORT
        return Judged(tuple(scores), tuple(reasons))


def target_of(example: Example) -> str | None:
    """What candidates are compared with: the target, else the best given response, or None where there is neither."""
    if example.target is not None:
        return example.target
    given = [c for c in example.candidates if c.source is not None and c.source.get("given")]
    if not given:
        return None
    return max(given, key=lambda c: -math.inf if c.score is None else c.score).text


def span_f1(
    candidate: Tensor, target: Tensor, spans: Sequence[int], weights: Sequence[float] | None = None
) -> float | None:
    """The similarity of two sequences of states [n, H] and [m, H]; None where no span fits into both.

    weights: of the spans; None: equal ones. Computed in float64.
    """
    import torch
    from torch.nn.functional import normalize

    cosines = normalize(candidate.double(), dim=-1) @ normalize(target.double(), dim=-1).T
    total = weight_of_all = 0.0
    for span, weight in zip(spans, [1.0] * len(spans) if weights is None else weights, strict=True):
        rows, columns = cosines.shape[0] - span + 1, cosines.shape[1] - span + 1
        if rows < 1 or columns < 1:
            continue
        aligned = torch.zeros_like(cosines[:rows, :columns])
        for t in range(span):
            aligned += cosines[t : t + rows, t : t + columns] / span
        precision = float(aligned.max(dim=1).values.mean())
        recall = float(aligned.max(dim=0).values.mean())
        is_like = not (precision <= 0 or recall <= 0)  # a number that is not finite stays one
        total += weight * (2 * precision * recall / (precision + recall) if is_like else 0.0)
        weight_of_all += weight
    return total / weight_of_all if weight_of_all else None
