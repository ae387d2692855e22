"""Whether, or how often, a pattern occurs in a candidate."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prefopt.fill import one_of
from prefopt.pairs.stages import Judged, Place
from prefopt.records import Example

__all__ = ["Regex"]


@dataclass(frozen=True)
class Regex:
    """weight * the number of matches, or weight * 1 where there is one at all.

    pattern: a regular expression of Python, searched for anywhere in the response; flags stand inside: (?i), (?s).
    count: any (1 or 0) or matches (those that do not overlap).
    weight: of a match; below 0 for a pattern that should not occur.
    """

    pattern: str = ""
    count: str = one_of("any", "matches")
    weight: float = 1.0

    uses: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ValueError("pattern must be a regular expression")
        try:
            re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from None
        if self.count not in ("any", "matches"):
            raise ValueError(f"count must be any or matches, not {self.count!r}")
        if self.weight == 0:
            raise ValueError("weight must not be 0, which would make all scores equal")

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Judged]]:
        """The function that searches."""
        pattern = re.compile(self.pattern)

        def score(text: str) -> float:
            if self.count == "any":
                return self.weight if pattern.search(text) else 0.0
            return self.weight * sum(1 for _ in pattern.finditer(text))

        def judge(examples: Sequence[Example]) -> list[Judged]:
            rows = [tuple(score(candidate.text) for candidate in example.candidates) for example in examples]
            return [Judged(row, (None,) * len(row)) for row in rows]

        return judge
