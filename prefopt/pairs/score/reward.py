"""Score by a Bradley-Terry reward model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.records import Example

__all__ = ["Reward"]


@dataclass(frozen=True)
class Reward:
    """What the scalar head of the model at `reward` gives at a response's last token (Ouyang et al. 2022).

    The model: of `prefopt train loss=reward_bt`, or any for sequence classification with one label whose family
    transformers knows. It reads prompt and response through its own tokenizer and chat template.

    There are no settings.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"reward"})

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a model that is none, has no head, or several labels."""
        from prefopt.pairs.model_checks import check_reward_model

        check_reward_model(asked.settings.reward, "reward")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that scores. Raises: UserError for a model that is none, has no head, or several labels."""
        from prefopt.pairs.score_models import named, open_reward_model

        path = named(place.settings.reward, "reward", "score=reward", "a reward model")
        model = open_reward_model(place, path, "reward")

        def score(examples: Sequence[Example]) -> list[Judged]:
            tokens = [model.encoder(example) for example in examples]
            return [
                one.judged([None if value is None else value[0] for value in values])
                for one, values in zip(tokens, model.rewards(tokens), strict=True)
            ]

        return score
