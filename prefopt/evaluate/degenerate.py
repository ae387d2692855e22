"""Answers that do not depend on the question: what games a judge, or a model that has broken down.

A constant answer once got the highest win rate of AlpacaEval 2 (Zheng et al. 2024, arXiv 2410.07137), so that
a win rate without this look says little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prefopt.errors import UserError

MOST_EQUAL = 0.2
"""Share of equal answers from which a model is degenerate. Of the eight honest models of AlpacaEval's files none has
more than 0.03, the empty answers of gemma-2b-it."""
MOST_NEAR = 0.5
"""The same for answers that are nearly the most common one."""
NEAR = 0.7
"""Share of the most common answer's 5-grams that an answer has from which on it is nearly that one."""
_GRAM = 5
_SHOWN = 80  # characters of the common answer that a message has
_FEWEST = 5  # of fewer answers nothing can be told


@dataclass(frozen=True)
class Sameness:
    """How alike the answers of a model are.

    equal: of the answers besides the most common one, the share that is the same, word for word. near: the share that
    has at least `NEAR` of its 5-grams of words (an answer of fewer than 5 words is one gram). common: that answer.
    count: of all.
    """

    equal: float
    near: float
    common: str
    count: int

    @property
    def is_degenerate(self) -> bool:
        """Whether the answers do not depend on the questions."""
        return self.count >= _FEWEST and (self.equal >= MOST_EQUAL or self.near >= MOST_NEAR)

    def sentence(self, name: str) -> str:
        """For a note or a message."""
        return (
            f"{name}: of {self.count} answers {self.equal:.0%} are the same, {self.near:.0%} nearly so:"
            f" {_short(self.common)!r}"
        )


def sameness(responses: Sequence[str]) -> Sameness:
    """How alike these answers are. Words are what white space parts; case counts.

    Nearly constant answers have no answer twice, so the one that most answers are compared with is the most common one,
    or, where all differ, the one in the middle by length.
    """
    words = [tuple(text.split()) for text in responses]
    counts = Counter(words)
    most = max(counts.values(), default=0)
    if not most:
        return Sameness(0.0, 0.0, "", 0)
    by_length = sorted(words, key=len)
    common = max(counts, key=lambda w: counts[w]) if most > 1 else by_length[len(words) // 2]
    grams = _grams(common)
    near = sum(len(grams & _grams(w)) >= NEAR * len(grams) for w in words)
    others = max(1, len(words) - 1)
    return Sameness((most - 1) / others, (near - 1) / others, " ".join(common), len(words))


def check_answers(responses: Sequence[str], name: str, allow: bool) -> tuple[Sameness, tuple[str, ...]]:
    """What was seen, and a note where the answers are degenerate.

    Raises: UserError for degenerate answers without allow.
    """
    seen = sameness(responses)
    if not seen.is_degenerate:
        return seen, ()
    if not allow:
        raise UserError(
            f"{seen.sentence(name)}: answers that do not depend on the question; a judge may like them all the same",
            "a small model often gives such answers where each token is the likeliest one: measure=answers"
            " measure.temperature=1 samples them; measure.allow_degenerate=true measures these nevertheless",
        )
    return seen, (f"{seen.sentence(name)}: its figures say how a judge is gamed, not what the answers are worth.",)


def _short(text: str) -> str:
    """The beginning of a text on one line, which says where it goes on."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _grams(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[i : i + _GRAM] for i in range(max(1, len(words) - _GRAM + 1))}
