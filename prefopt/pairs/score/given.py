"""The scores that candidates already carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prefopt.pairs.stages import Judged, Place
from prefopt.records import Example

__all__ = ["Given"]

NO_SCORE = "no score is given"


@dataclass(frozen=True)
class Given:
    """Scores of the data as they stand: human ranks turned into numbers, a reward model's of an earlier command."""

    uses: ClassVar[frozenset[str]] = frozenset()

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that hands the scores on."""
        return lambda examples: [_judged(example) for example in examples]


def _judged(example: Example) -> Judged:
    scores = tuple(candidate.score for candidate in example.candidates)
    return Judged(scores, tuple(NO_SCORE if score is None else None for score in scores))
