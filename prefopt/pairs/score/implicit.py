"""Score by the reward that a preference-trained model implies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prefopt.pairs.stages import Asked, Judged, Place
from prefopt.records import Example

__all__ = ["Implicit"]


@dataclass(frozen=True)
class Implicit:
    """beta times the log-ratio of a preference-trained model to its reference (Rafailov et al. 2023, arXiv 2305.18290).

        score = beta * (log p(response | prompt) of the model - the same of the reference)

    Sums over response tokens, EOS included. Both models have one tokenizer. Rewards of one prompt compare; a term that
    depends on the prompt alone is unknown, so those of different prompts do not.

    model: a folder, hub name or adapters; empty: the command's `reward`. The reference is the command's `reference`.
    beta: reward per nat, above 0. Default 0.1, as DPO's; it scales scores and reorders none.
    """

    model: str = ""
    beta: float = 0.1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")

    @property
    def uses(self) -> frozenset[str]:
        """Keys of models that must be given."""
        return frozenset({"reference"} if self.model else {"reference", "reward"})

    def check(self, asked: Asked) -> None:
        """Raises: UserError for a model or a reference that is no language model."""
        from prefopt.pairs.model_checks import check_language_model

        check_language_model(self.model or asked.settings.reward, "model of score=implicit" if self.model else "reward")
        check_language_model(asked.settings.reference, "reference")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that scores. Raises: UserError for models that are missing, or read different ids."""
        from prefopt.pairs.score_models import check_same_tokenizer, named, open_language_model

        stage = "score=implicit"
        key = f"model of {stage}" if self.model else "reward"
        path = self.model or named(place.settings.reward, "reward", stage, "the model that was trained")
        before = named(place.settings.reference, "reference", stage, "the model that training started from")
        model = open_language_model(place, path, key)
        reference = open_language_model(place, before, "reference")
        check_same_tokenizer(model, reference, "reference")
        model.encoder.max_length = min(model.encoder.max_length, reference.encoder.max_length)

        def score(examples: Sequence[Example]) -> list[Judged]:
            tokens = [model.encoder(example) for example in examples]
            columns = zip(tokens, model.logps(tokens), reference.logps(tokens), strict=True)
            return [
                one.judged(
                    [None if p is None or r is None else self.beta * (p - r) for p, r in zip(logps, references)],
                    [None if p is None else {"logp": p, "reference_logp": r} for p, r in zip(logps, references)],
                )
                for one, logps, references in columns
            ]

        return score
