"""How long a candidate is: what every other score should be compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prefopt.fill import one_of
from prefopt.pairs.stages import Judged, Place
from prefopt.records import Example

__all__ = ["Length"]


@dataclass(frozen=True)
class Length:
    """The length of a response, or minus it.

    unit: words (between white space) or characters, which suit a language that is written without spaces.
    better: longer or shorter.
    """

    unit: str = one_of("words", "characters")
    better: str = one_of("longer", "shorter")

    uses: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.unit not in ("words", "characters"):
            raise ValueError(f"unit must be words or characters, not {self.unit!r}")
        if self.better not in ("longer", "shorter"):
            raise ValueError(f"better must be longer or shorter, not {self.better!r}")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that counts."""
        return lambda examples: [self._judged(example) for example in examples]

    def _judged(self, example: Example) -> Judged:
        sign = 1.0 if self.better == "longer" else -1.0
        texts = [candidate.text for candidate in example.candidates]
        scores = tuple(sign * len(text.split() if self.unit == "words" else text) for text in texts)
        return Judged(scores, (None,) * len(scores))
