"""Score by a reward model of several objectives, weighed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from prefopt.errors import UserError, did_you_mean
from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.records import Example

__all__ = ["RewardHeads"]


@dataclass(frozen=True)
class RewardHeads:
    """A weighted sum over the labels of the model at `reward`, read at a response's last token.

        score = sum over labels of weight * value

    The model: any for sequence classification with several labels whose family transformers knows. What every label
    gives is kept beside the score, so that others can be weighed later.

    weights: label, by its name or its place (from 0), to its weight; labels that are not named have none. There is no
        default: models differ in what their labels mean and in which direction they are good.
    """

    weights: dict[str, float] = field(default_factory=dict)

    uses: ClassVar[frozenset[str]] = frozenset({"reward"})

    def __post_init__(self) -> None:
        if self.weights and not any(self.weights.values()):
            raise ValueError("weights are all 0, so that every candidate would score the same")

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a model or weights that will not do."""
        from prefopt.pairs.model_checks import check_reward_heads

        _check(self.weights, check_reward_heads(asked.settings.reward, "reward")[1], asked.settings.reward)

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that scores. Raises: UserError for a model or weights that will not do."""
        from prefopt.pairs.model_checks import check_reward_heads
        from prefopt.pairs.score_models import named, open_reward_heads

        path = named(place.settings.reward, "reward", "score=reward_heads", "a reward model")
        _, labels = check_reward_heads(path, "reward")
        _check(self.weights, labels, path)
        model = open_reward_heads(place, path, "reward")
        weight = by_place(self.weights, labels)

        def score(examples: Sequence[Example]) -> list[Judged]:
            tokens = [model.encoder(example) for example in examples]
            return [
                one.judged(
                    [None if v is None else math.fsum(w * x for w, x in zip(weight, v, strict=True)) for v in values],
                    [None if v is None else {"heads": dict(zip(_distinct(labels), v, strict=True))} for v in values],
                )
                for one, values in zip(tokens, model.rewards(tokens), strict=True)
            ]

        return score


def by_place(weights: Mapping[str, float], labels: Sequence[str]) -> list[float]:
    """[labels] the weight of each label. weights: by name or place.

    Raises: KeyError for one that there is not, ValueError for one that is named twice, by its name and by its place.
    """
    found: dict[int, float] = {}
    for key, weight in weights.items():
        number = labels.index(key) if key in labels else int(key) if key.isdecimal() else len(labels)
        if number >= len(labels):
            raise KeyError(key)
        if number in found:
            raise ValueError(labels[number])
        found[number] = weight
    return [found.get(number, 0.0) for number in range(len(labels))]


def _check(weights: Mapping[str, float], labels: Sequence[str], path: str) -> None:
    """Raises: UserError for weights that the model's labels do not fit."""
    names = ", ".join(labels)
    if not weights:
        raise UserError(f"score=reward_heads: weights is empty; the labels of {path} are {names}", "weigh at least one")
    try:
        by_place(weights, labels)
    except KeyError as error:
        (key,) = error.args
        near = did_you_mean(key, labels)
        raise UserError(f"score=reward_heads: weights.{key}: {path} has no such label ({names})", near) from None
    except ValueError as error:
        raise UserError(
            f"score=reward_heads: weights name {error} twice, by its name and by its place", "take one of them out"
        ) from None


def _distinct(labels: Sequence[str]) -> list[str]:
    """The labels, with their places where two have one name."""
    return [label if labels.count(label) == 1 else f"{label} ({place})" for place, label in enumerate(labels)]
