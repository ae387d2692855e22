"""Score by how likely a language model finds each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.records import Example

__all__ = ["MeanLogp"]


@dataclass(frozen=True)
class MeanLogp:
    """The mean log-likelihood of a response's tokens under a language model, in nats per token.

        score = log p(response | prompt) / |response|

    Tokens of the response, EOS included. This is the reward of SimPO and RRHF over their own policy.

    model: a folder, hub name or adapters; empty: the policy, where there is one and not several.
    """

    model: str = ""

    @property
    def uses(self) -> frozenset[str]:
        """Keys of models that must be given."""
        return frozenset() if self.model else frozenset({"policy"})

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a model that is no language model, or not clear."""
        from prefopt.pairs.model_checks import own_model

        own_model(self.model, asked, "score=mean_logp")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that scores. Raises: UserError for a model that is missing, no language model, or not clear."""
        from prefopt.pairs.score_models import open_policy

        model = open_policy(place, self.model, "score=mean_logp")

        def score(examples: Sequence[Example]) -> list[Judged]:
            tokens = [model.encoder(example) for example in examples]
            return [
                one.judged([None if p is None or ids is None else p / len(ids) for p, ids in zip(logps, one.responses)])
                for one, logps in zip(tokens, model.logps(tokens), strict=True)
            ]

        return score
