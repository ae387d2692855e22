"""One pair a prompt, the longer answer chosen about half of the time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefopt.fill import one_of
from prefopt.pairs.comparable import better_pairs, scores_of, widest
from prefopt.pairs.lengths import length_of
from prefopt.pairs.ranking import Pair
from prefopt.pairs.stages import Selected
from prefopt.records import Example

__all__ = ["LengthBalanced"]


@dataclass(frozen=True)
class LengthBalanced:
    """A pair of which the prompt alone decides, by a fair draw, whether chosen is the longer or the shorter answer; of
    these the widest gap in score.

    one_sided: what becomes of a prompt whose better answers are always the longer ones, or always the shorter.
        drop: it is left out, so that over any data the longer answer is chosen half of the time, but for the luck of
        the draws; prompts with two candidates, which are all one-sided, are lost but for answers of equal length.
        keep: the widest gap of the other kind is taken: nothing is lost, and the balance is as the scores allow.
    max_ratio: the longer answer of a pair may be so many times as long as the shorter; null: any. With one_sided=keep
        this is what holds lengths together.
    unit: what lengths are counted in: words, or characters for texts that do not divide words.

    Answers of equal length are neither kind; they are taken where the kind that was drawn is not to be had.
    """

    one_sided: str = one_of("drop", "keep")
    max_ratio: float | None = None
    unit: str = one_of("words", "characters")

    writes: ClassVar[Literal["pairs"]] = "pairs"
    decided_by: ClassVar[Literal["scores"]] = "scores"

    def __post_init__(self) -> None:
        if self.max_ratio is not None and self.max_ratio < 1:
            raise ValueError(f"max_ratio must be 1 or more, or null, not {self.max_ratio}")

    def __call__(self, example: Example, chance: random.Random) -> Selected:
        wants_longer = chance.random() < 0.5
        pairs, why = better_pairs(example.candidates)
        if not pairs:
            return Selected(reason=why)
        lengths = [length_of(candidate.text, self.unit) for candidate in example.candidates]
        near = [pair for pair in pairs if self._is_near(lengths[pair[0]], lengths[pair[1]])]
        if not near:
            return Selected(reason="no pair within max_ratio")
        longer, shorter, equal = _by_kind(near, lengths)
        drawn, other = (longer, shorter) if wants_longer else (shorter, longer)
        # Dropped are prompts that could have given one kind only, whichever was drawn: else that kind would prevail.
        found = drawn or equal or other if self.one_sided == "keep" else (other and drawn) or equal
        if not found:
            return Selected(reason=f"the better answer is always the {'longer' if longer else 'shorter'}")
        return Selected((widest(found, scores_of(example.candidates)),))

    def _is_near(self, one: int, other: int) -> bool:
        return self.max_ratio is None or max(one, other) <= self.max_ratio * min(one, other)


def _by_kind(pairs: list[Pair], lengths: list[int]) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Pairs of which chosen is the longer, the shorter, and as long as rejected."""
    longer = [(i, j) for i, j in pairs if lengths[i] > lengths[j]]
    shorter = [(i, j) for i, j in pairs if lengths[i] < lengths[j]]
    return longer, shorter, [(i, j) for i, j in pairs if lengths[i] == lengths[j]]
