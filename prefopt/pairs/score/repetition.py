"""How much a candidate repeats itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prefopt.pairs.stages import Judged, Place
from prefopt.records import Example

__all__ = ["Repetition"]


def repeated_share(words: Sequence[Hashable], n: int) -> float:
    """Share of the n-grams of a sequence that have occurred before in it, from 0 to 1; 0 where there is none."""
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class Repetition:
    """Minus the share of a response's word n-grams that have occurred before in it: from 0 (none has) down to -1.

    n-grams overlap; m words have m - n + 1 of them. A response of fewer words has none and gets 0. Words stand between
    white space and count with their letter case and punctuation. Training watches the same share of token 4-grams
    (sample.max_repetition).

    n: words in an n-gram. Default 4: fewer recur in good prose too.
    """

    n: int = 4

    uses: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be 1 or more, not {self.n}")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that counts."""
        return lambda examples: [self._judged(example) for example in examples]

    def _judged(self, example: Example) -> Judged:
        scores = tuple(-repeated_share(candidate.text.split(), self.n) for candidate in example.candidates)
        return Judged(scores, (None,) * len(scores))
