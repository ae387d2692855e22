"""Prompts and responses swapped: what a backward model p(instruction | text) is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prefopt.pairs.stages import GIVEN, Generated, LeftOut, Place
from prefopt.records import Candidate, Example, Message

__all__ = ["Swapped"]


@dataclass(frozen=True)
class Swapped:
    """A given response becomes the prompt, and the instruction that it answers the one candidate (Li et al. 2023,
    arXiv 2308.06259). `prefopt train loss=sft` on these rows makes the policy of `generate=back_translate`.

    Of several given responses the best is swapped, of equal or missing scores the first; the others are left out, as is
    a prompt of several turns, which no single instruction stands for. The candidate keeps the response's score.

    is_chat: whether the text becomes a user's turn of a conversation or a plain prompt: as the texts will be from which
        the backward model is to find instructions.
    """

    is_chat: bool = False

    needs_policy: ClassVar[bool] = False
    works_on_responses: ClassVar[bool] = True

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Generated]]:
        """Nothing is loaded."""
        return lambda examples: [self._swapped(example) for example in examples]

    def _swapped(self, example: Example) -> Generated:
        if not example.candidates:
            return Generated((), (LeftOut(example.id, "no given response", "the row holds a prompt alone"),))
        if len(example.prompt) > 1:
            why = LeftOut(example.id, "prompt of several turns", f"{len(example.prompt)} turns, the system's included")
            return Generated((), (why,))
        scores = [float("-inf") if c.score is None else c.score for c in example.candidates]
        best = scores.index(max(scores))
        taken = example.candidates[best]
        instruction = Candidate(example.prompt[0].content, score=taken.score, source={GIVEN: True, "swapped": True})
        others = tuple(
            LeftOut(example.id, "only the best response is swapped", "", candidate.text)
            for place, candidate in enumerate(example.candidates)
            if place != best
        )
        return Generated((Example(example.id, (Message("user", taken.text),), (instruction,), self.is_chat),), others)
